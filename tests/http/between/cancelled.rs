//! A layer that cancels its handler, never calls the handler, or lets another task run the handler.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::BoxError;
use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum_idem::Idempotency;
use tower::ServiceBuilder;
use tower_http::timeout::TimeoutLayer;

use super::{App, Commit, routes, start_with, unit_of_work};
use crate::support::{Server, eventually};

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_timeout_below_the_layer_does_not_stop_the_handler_and_is_not_recorded() {
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SHORT);
    let setup = start_with(Idempotency::in_memory(), |router| router.layer(timeout)).await;
    assert_eq!(setup.post("/slow").await.status, 504);
    assert_eq!(
        setup.post("/slow").await.code(),
        "idempotency_key_in_flight"
    );
    setup.app.runs.open(1);
    setup.drained().await;
    let retry = setup.post("/slow").await;
    assert!(retry.status == 201 && retry.is_replay(), "{retry:?}");
    assert_eq!(setup.app.runs.started(), 1);
}

/// A recordable status of the timeout changes nothing: the handler has not responded yet.
#[tokio::test]
async fn a_recordable_status_above_a_cancelled_handler_is_not_recorded() {
    let timeout = TimeoutLayer::with_status_code(StatusCode::ACCEPTED, SHORT);
    let setup = start_with(Idempotency::in_memory(), |router| router.layer(timeout)).await;
    assert_eq!(setup.post("/slow").await.status, 202);
    setup.app.runs.open(1);
    setup.drained().await;
    assert_eq!(setup.post("/slow").await.text(), "run 1");
}

#[tokio::test]
async fn a_timeout_during_the_commit_leaves_the_record_to_its_status() {
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SHORT);
    let setup = start_with(Idempotency::in_memory(), |router| router.layer(timeout)).await;
    setup.app.books.next_commit(Commit::Waits);
    assert_eq!(setup.post("/book").await.status, 504);
    assert_eq!(setup.app.books.rolled_back(), 1);
    assert!(setup.stored().await.is_none());
    assert_eq!(setup.post("/book").await.text(), "run 2, attempt 1");
    assert_eq!(setup.app.books.rows(), ["row 2"]);
}

/// The error of a service has no status. The layer above turns the error into a failure.
#[tokio::test]
async fn an_error_of_a_layer_is_not_recorded() {
    let app = App::default();
    let (fails, failed) = (
        Arc::new(AtomicBool::new(true)),
        StatusCode::SERVICE_UNAVAILABLE,
    );
    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(
            move |_: BoxError| async move { failed },
        ))
        .layer(Idempotency::in_memory())
        .map_result(move |result: Result<Response, Infallible>| {
            if fails.swap(false, Ordering::SeqCst) {
                return Err(BoxError::from("the first response is lost"));
            }
            result.map_err(|never| match never {})
        });
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(layers);
    let server = Server::start(router).await;
    assert_eq!(server.post("/book", "k", "").await.status, failed);
    let retry = server.post("/book", "k", "").await;
    assert_eq!(
        (retry.text(), retry.is_replay()),
        ("run 2, attempt 1", false)
    );
    assert!(server.post("/book", "k", "").await.is_replay());
}

#[tokio::test]
async fn a_layer_that_never_calls_its_handler_leaves_the_key_free() {
    let is_closed = Arc::new(AtomicBool::new(true));
    let closed = is_closed.clone();
    let gate = move |request: Request, next: Next| {
        let is_closed = closed.load(Ordering::SeqCst);
        async move {
            if is_closed {
                return "closed".into_response();
            }
            next.run(request).await
        }
    };
    let setup = start_with(Idempotency::in_memory(), |router| {
        router.layer(from_fn(gate))
    })
    .await;
    assert_eq!(setup.post("/book").await.text(), "closed");
    assert!(setup.stored().await.is_none());
    is_closed.store(false, Ordering::SeqCst);
    assert_eq!(setup.post("/book").await.text(), "run 1, attempt 1");
    assert!(setup.post("/book").await.is_replay());
}

/// Responds before its handler does, as a job queue would.
async fn spawns(request: Request, next: Next) -> Response {
    tokio::spawn(next.run(request));
    StatusCode::ACCEPTED.into_response()
}

#[tokio::test]
async fn a_handler_that_outlives_the_response_of_its_layers_settles_by_itself() {
    let above = |router: Router| router.layer(from_fn(spawns));
    let setup = start_with(Idempotency::in_memory(), above).await;
    assert_eq!(setup.post("/slow").await.status, 202);
    setup.app.runs.until_started(1).await;
    setup.app.runs.open(1);
    setup.drained().await;
    assert!(setup.stored().await.is_some(), "it is recorded");
    assert_eq!(setup.post("/slow").await.status, 202);
    assert_eq!(setup.app.runs.started(), 1);
}

/// The client leaves while a layer waits and no handler runs: there is nothing to go on with.
#[tokio::test]
async fn a_layer_that_waits_before_its_handler_is_dropped_with_its_client() {
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let is_gone = Arc::new(AtomicBool::new(false));
    let gone = is_gone.clone();
    let waits = move |_: Request, _: Next| {
        let gone = Gone(gone.clone());
        async move {
            let _gone = gone;
            pending::<Response>().await
        }
    };
    let setup = start_with(Idempotency::in_memory(), |router| {
        router.layer(from_fn(waits))
    })
    .await;
    let stream = setup
        .server
        .write(crate::support::post_bytes("/book", "k", ""))
        .await;
    setup.server.connect().await;
    drop(stream);
    eventually("the layer is dropped", || is_gone.load(Ordering::SeqCst)).await;
    setup.drained().await;
}
