//! A layer between the `Idempotency` layer and the handler panics. The outcome of its work is unknown.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum_idem::Idempotency;
use axum_idem::store::Entry;
use tower::util::MapFutureLayer;
use tower_http::catch_panic::CatchPanicLayer;

use super::{App, Commit, LONG, Setup, routes, start_with, unit_of_work};
use crate::support::{Server, post_bytes, read_to_end};

/// A service that catches panics above the `Idempotency` layer.
async fn caught_above(between: impl FnOnce(Router) -> Router) -> Setup {
    let (app, idem) = (App::default(), Idempotency::in_memory());
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work));
    let router = between(router)
        .layer(idem.clone())
        .layer(CatchPanicLayer::new());
    let server = Server::start(router).await;
    Setup { server, app, idem }
}

async fn caught_between() -> Setup {
    let catch = |router: Router| router.layer(CatchPanicLayer::new());
    start_with(Idempotency::in_memory(), catch).await
}

#[tokio::test]
async fn a_panic_after_the_commit_leaves_the_outcome_unknown() {
    let setup = caught_above(|router| router).await;
    setup.app.books.next_commit(Commit::Panics);
    assert_eq!(setup.post("/book").await.status, 500);
    assert!(matches!(setup.stored().await, Some(Entry::Unknown { .. })));
    assert_eq!(setup.post("/book").await.text(), "run 2, attempt 2");
    assert!(setup.post("/book").await.is_replay());
}

#[tokio::test]
async fn an_endpoint_holds_its_key_after_a_panic_of_a_layer() {
    for setup in [caught_above(|router| router).await, caught_between().await] {
        setup.app.books.next_commit(Commit::Panics);
        assert_eq!(setup.post("/hold").await.status, 500);
        let retry = setup.post("/hold").await;
        assert_eq!(retry.code(), "idempotency_outcome_unknown");
        assert_eq!(setup.app.runs.started(), 1);
    }
}

/// Its 500 decides, as if the handler had responded with it.
#[tokio::test]
async fn a_panic_that_a_layer_between_catches_is_a_failure_like_any_other() {
    let setup = caught_between().await;
    setup.app.books.next_commit(Commit::Panics);
    assert_eq!(setup.post("/book").await.status, 500);
    assert_eq!(setup.post("/book").await.text(), "run 2, attempt 1");
    assert!(setup.post("/book").await.is_replay());
}

#[tokio::test]
async fn a_panic_that_nobody_catches_closes_the_connection_and_leaves_the_outcome_unknown() {
    let (app, idem) = (App::default(), Idempotency::in_memory());
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(idem.clone());
    let server = Server::start(router).await;
    app.books.next_commit(Commit::Panics);
    let stream = server.write(post_bytes("/hold", "k", "")).await;
    assert!(read_to_end(stream).await.is_empty());
    let retry = server.post("/hold", "k", "").await;
    assert_eq!(retry.code(), "idempotency_outcome_unknown");
}

#[tokio::test]
async fn a_panic_in_the_background_leaves_the_outcome_unknown() {
    let setup = caught_above(|router| router).await;
    let (runs, books) = (&setup.app.runs, &setup.app.books);
    books.next_commit(Commit::Panics);
    let stream = setup.server.write(post_bytes("/slow", "k", "")).await;
    runs.until_started(1).await;
    drop(stream);
    for _ in 0..20 {
        assert_eq!(
            setup.post("/slow").await.code(),
            "idempotency_key_in_flight"
        );
    }
    runs.open(1);
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(matches!(setup.stored().await, Some(Entry::Unknown { .. })));
}

/// Panics as soon as its handler runs, while the handler still waits.
pub(super) async fn panics_while_the_handler_runs(request: Request, next: Next) -> Response {
    if !request.headers().contains_key("x-panics") {
        return next.run(request).await;
    }
    let beside = async {
        tokio::task::yield_now().await;
        panic!("beside the handler");
    };
    let (response, ()) = futures_util::future::join(next.run(request), beside).await;
    response
}

/// The panic drops the handler's future before the layer itself. The handler must not go on alone,
/// since the transaction around it is gone.
#[tokio::test]
async fn a_layer_that_panics_while_its_handler_runs_leaves_the_outcome_unknown() {
    let setup = caught_above(|router| router.layer(from_fn(panics_while_the_handler_runs))).await;
    let panics = post_bytes("/slow", "k", "").replacen("\r\n", "\r\nx-panics: 1\r\n", 1);
    let panics = panics.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    let answer = setup.server.write_and_read(panics).await;
    assert_eq!(crate::support::status_of(&answer), 500);
    setup.drained().await;
    assert!(matches!(setup.stored().await, Some(Entry::Unknown { .. })));
    assert_eq!(
        (setup.app.runs.started(), setup.app.runs.finished()),
        (1, 0)
    );
    assert_eq!(setup.app.books.rolled_back(), 1);
}

/// Panics at its second poll, and drops nothing while the panic unwinds.
struct PanicsLater<F> {
    inner: Pin<Box<F>>,
    has_begun: bool,
}

impl<F: Future> Future for PanicsLater<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        assert!(!self.has_begun, "the layer panics");
        self.has_begun = true;
        cx.waker().wake_by_ref();
        self.inner.as_mut().poll(cx)
    }
}

/// The handler is dropped when the panic has been caught. It must not go on alone either.
#[tokio::test]
async fn a_panic_that_drops_the_handler_later_leaves_the_outcome_unknown() {
    let later = MapFutureLayer::new(|future| PanicsLater {
        inner: Box::pin(future),
        has_begun: false,
    });
    let setup = caught_above(|router| router.layer(later)).await;
    assert_eq!(setup.post("/slow").await.status, 500);
    setup.app.runs.open(1);
    setup.drained().await;
    assert!(matches!(setup.stored().await, Some(Entry::Unknown { .. })));
    assert_eq!(
        (setup.app.runs.started(), setup.app.runs.finished()),
        (1, 0)
    );
}

/// The handler's own panic is unknown, whoever catches it.
#[tokio::test]
async fn a_panic_of_the_handler_is_unknown_behind_layers_too() {
    use axum_idem::idempotent;

    #[idempotent(scope = global, on_unknown = hold)]
    async fn panics() -> StatusCode {
        std::panic::panic_any(7)
    }
    let router = Router::new()
        .route("/", axum::routing::post(panics))
        .layer(from_fn(|request: Request, next: Next| async {
            next.run(request).await.into_response()
        }))
        .layer(CatchPanicLayer::new())
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    assert_eq!(server.post("/", "k", "").await.status, 500);
    let retry = server.post("/", "k", "").await;
    assert_eq!(retry.code(), "idempotency_outcome_unknown");
}
