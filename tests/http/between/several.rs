//! Several calls, several requests and several `Idempotency` layers.

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, FromRef, FromRequest, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::MemoryStore;
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Dialect, Idempotency, Scope, idempotent};
use futures_util::FutureExt;
use tower::ServiceExt;

use super::{App, Books, Commit, Setup, Unit, routes, start_with, unit_of_work};
use crate::support::{KEY, Runs, Server, post_bytes, request};

/// Fails at first.
#[idempotent(scope = global)]
async fn fails_once(State(runs): State<Runs>) -> Result<String, StatusCode> {
    match runs.count() {
        1 => Err(StatusCode::SERVICE_UNAVAILABLE),
        run => Ok(format!("run {run}")),
    }
}

fn again(parts: &http::request::Parts) -> Request {
    Request::from_parts(parts.clone(), Body::empty())
}

/// Calls its handler again after a 5xx.
pub(super) async fn retries(request: Request, next: Next) -> Response {
    let (parts, _) = request.into_parts();
    let response = next.clone().run(again(&parts)).await;
    if response.status().is_server_error() {
        return next.run(again(&parts)).await;
    }
    response
}

/// Calls its handler again whatever it responds.
async fn asks_twice(request: Request, next: Next) -> Response {
    let (parts, _) = request.into_parts();
    next.clone().run(again(&parts)).await;
    next.run(again(&parts)).await
}

#[tokio::test]
async fn a_layer_that_calls_its_handler_again_after_a_failure_gets_a_second_run() {
    // A store that replies at once, and one that makes each transition wait.
    for idem in [
        Idempotency::in_memory(),
        Idempotency::builder()
            .store(FaultStore::new(MemoryStore::default()))
            .build(),
    ] {
        let runs = Runs::default();
        let router = Router::new()
            .route("/", post(fails_once))
            .layer(from_fn(retries))
            .layer(idem)
            .with_state(runs.clone());
        let server = Server::start(router).await;
        let first = server.post("/", "k", "").await;
        assert_eq!((first.text(), first.is_replay()), ("run 2", false));
        let replay = server.post("/", "k", "").await;
        assert_eq!((replay.text(), replay.is_replay()), ("run 2", true));
        assert_eq!(runs.started(), 2);
    }
}

/// After a failed release, the key stays in flight until the engine releases it in the background.
#[tokio::test]
async fn a_release_that_fails_between_two_calls_leaves_the_key_in_flight() {
    let store = FaultStore::new(MemoryStore::default());
    store.script(Operation::Release, [Fault::ErrBefore]);
    let idem = Idempotency::builder().store(store).build();
    let router = Router::new()
        .route("/", post(fails_once))
        .layer(from_fn(retries))
        .layer(idem.clone())
        .with_state(Runs::default());
    let server = Server::start(router).await;
    assert_eq!(
        server.post("/", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
    idem.drain(super::LONG).await;
    assert_eq!(server.post("/", "k", "").await.text(), "run 2");
}

#[tokio::test]
async fn a_layer_that_calls_its_handler_twice_gets_a_replay_and_its_failure_still_decides() {
    for fails in [false, true] {
        let app = App::default();
        let router = routes()
            .with_state(app.clone())
            .layer(from_fn_with_state(app.books.clone(), unit_of_work))
            .layer(from_fn(asks_twice))
            .layer(from_fn(move |request: Request, next: Next| async move {
                let response = next.run(request).await;
                if fails {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                }
                response
            }))
            .layer(Idempotency::in_memory());
        let server = Server::start(router).await;
        let first = server.post("/book", "k", "").await;
        if fails {
            assert_eq!(first.status, 503);
            assert_eq!(app.runs.started(), 1);
            server.post("/book", "k", "").await;
            assert_eq!(app.runs.started(), 2);
        } else {
            assert_eq!(
                (first.text(), first.is_replay()),
                ("run 1, attempt 1", true)
            );
            assert!(server.post("/book", "k", "").await.is_replay());
            assert_eq!(app.books.rows(), ["row 1"]);
        }
    }
}

/// Makes two requests with keys of their own out of one.
async fn batch(request: Request, next: Next) -> Response {
    let (parts, _) = request.into_parts();
    let mut failed = false;
    for key in ["one", "two"] {
        let mut part = again(&parts);
        part.headers_mut()
            .insert(KEY, HeaderValue::from_static(key));
        failed |= !next.clone().run(part).await.status().is_success();
    }
    assert!(!failed);
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

/// The status of the batch says nothing about a part of it.
#[tokio::test]
async fn each_item_of_a_batch_is_settled_separately() {
    let batch = |router: Router| router.layer(from_fn(batch));
    let setup = start_with(Idempotency::in_memory(), batch).await;
    for _ in 0..2 {
        assert_eq!(setup.post("/book").await.status, 503);
    }
    assert_eq!(setup.app.runs.started(), 2);
    assert_eq!(setup.app.books.rows(), ["row 1", "row 2"]);
    for key in ["one", "two"] {
        let id = setup.idem.record_id(&Scope::new(), key);
        assert!(
            setup
                .idem
                .look_up(id)
                .await
                .expect("memory does not fail")
                .is_some()
        );
    }
}

/// The inner layer provides the settings. The record is written when the response leaves the outer layer.
async fn two_layers(inner: Idempotency, outer: Idempotency) -> Setup {
    let app = App::default();
    let router = routes()
        .with_state(app.clone())
        .layer(inner.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(outer);
    let server = Server::start(router).await;
    Setup {
        server,
        app,
        idem: inner,
    }
}

#[tokio::test]
async fn a_layer_between_two_idempotency_layers_finishes_before_the_record_is_written() {
    let marks = Dialect::default().replay_header("x-inner");
    let inner = Idempotency::builder().dialect(marks).build();
    let setup = two_layers(inner, Idempotency::in_memory()).await;
    setup
        .app
        .books
        .next_commit(Commit::Fails(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(setup.post("/book").await.status, 500);
    assert_eq!(setup.post("/book").await.text(), "run 2, attempt 1");
    let replay = setup.post("/book").await;
    assert!(replay.headers.contains_key("x-inner") && !replay.is_replay());
    assert_eq!(setup.app.books.rows(), ["row 2"]);
}

#[tokio::test]
async fn two_idempotency_layers_may_have_different_key_headers() {
    let own = Dialect::default().key_header("x-inner-key");
    let inner = Idempotency::builder().dialect(own).build();
    let setup = two_layers(inner, Idempotency::in_memory()).await;
    setup
        .app
        .books
        .next_commit(Commit::Fails(StatusCode::INTERNAL_SERVER_ERROR));
    let both = [(KEY, "outer"), ("x-inner-key", "inner")];
    let send = || {
        setup
            .server
            .send(request(http::Method::POST, "/book", both, ""))
    };
    assert_eq!(send().await.status, 500);
    assert_eq!(send().await.text(), "run 2, attempt 1");
    assert!(send().await.is_replay());
}

#[derive(Clone)]
struct Named {
    app: App,
    idem: Idempotency,
}

impl FromRef<Named> for Runs {
    fn from_ref(named: &Named) -> Self {
        named.app.runs.clone()
    }
}

#[idempotent(scope = global, runtime = named.idem)]
async fn with_runtime(State(named): State<Named>) -> (StatusCode, String) {
    let run = named.app.runs.count();
    (StatusCode::CREATED, format!("run {run}"))
}

/// `runtime = …` has the settings, and the layer the bounds. Without a layer, the handler settles.
#[tokio::test]
async fn an_endpoint_with_its_own_runtime_waits_for_the_layers_below_an_idempotency_layer() {
    for (has_layer, retry) in [(true, ("run 2", false)), (false, ("run 1", true))] {
        let (app, idem) = (App::default(), Idempotency::in_memory());
        let books: Books = app.books.clone();
        let router = Router::new()
            .route("/", post(with_runtime))
            .with_state(Named { app, idem })
            .layer(from_fn_with_state(books.clone(), unit_of_work));
        let router = if has_layer {
            router.layer(Idempotency::in_memory())
        } else {
            router
        };
        let server = Server::start(router).await;
        books.next_commit(Commit::Fails(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(server.post("/", "k", "").await.status, 500);
        let second = server.post("/", "k", "").await;
        assert_eq!((second.text(), second.is_replay()), retry);
    }
}

/// An extractor that never ends.
struct Never;

impl<S: Sync> FromRequest<S> for Never {
    type Rejection = StatusCode;

    async fn from_request(_: Request, _: &S) -> Result<Self, StatusCode> {
        std::future::pending().await
    }
}

#[idempotent(scope = header("x-inner"))]
async fn inner(_: Never) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Gives the request to another annotated handler, and then does without it.
#[idempotent(scope = global)]
async fn outer(
    State(runs): State<Runs>,
    Extension(unit): Extension<Unit>,
    mut request: Request,
) -> StatusCode {
    unit.insert("row".to_owned());
    let name = HeaderValue::from_static("inner");
    request.headers_mut().insert("x-inner", name);
    let other = Router::<()>::new().route("/", post(inner)).oneshot(request);
    assert!(other.now_or_never().is_none(), "it waits for its extractor");
    runs.pass().await;
    StatusCode::CREATED
}

/// The slot belongs to the outer handler, whatever becomes of the inner one.
#[tokio::test]
async fn an_inner_handler_that_is_dropped_leaves_the_slot_to_the_outer_one() {
    let (app, idem) = (App::default(), Idempotency::in_memory());
    let router = Router::new()
        .route("/", post(outer))
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(idem.clone());
    let server = Server::start(router).await;
    let stream = server.write(post_bytes("/", "k", "")).await;
    app.runs.until_started(1).await;
    drop(stream);
    for _ in 0..20 {
        let duplicate = server.post("/", "k", "").await;
        assert_eq!(duplicate.code(), "idempotency_key_in_flight");
    }
    app.runs.open(1);
    assert_eq!(idem.drain(super::LONG).await, 0);
    assert!(server.post("/", "k", "").await.is_replay());
    assert_eq!(app.books.rows(), ["row"]);
}
