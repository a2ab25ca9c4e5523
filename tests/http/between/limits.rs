//! Limits of a run, and bodies that fail, below a layer that commits.

use std::convert::Infallible;
use std::iter::repeat_n;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore};
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Idempotency, OutcomeUnknown, Scope, idempotent};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::sleep;
use tower_http::catch_panic::CatchPanicLayer;

use super::panics::panics_while_the_handler_runs;
use super::{App, Commit, Setup, Unit, routes, start_with, unit_of_work};
use crate::support::{self, Runs, Server, eventually, post_bytes};

const UNKNOWN: &str = "idempotency_outcome_unknown";

/// A service that limits a run, and its commit, to this time.
async fn limited(max_run: Duration) -> Setup {
    let idem = Idempotency::builder().max_run(max_run).build();
    start_with(idem, |router| router).await
}

/// Without a limit, a commit that hangs would hold the key, a permit and `drain` for ever.
#[tokio::test]
async fn a_commit_that_hangs_is_ended_after_max_run() {
    let setup = limited(Duration::from_millis(100)).await;
    setup.app.books.next_commit(Commit::Waits);
    let first = setup.post("/hold").await;
    assert_eq!(first.status, 504);
    assert_eq!(first.code(), "idempotency_run_timeout");
    assert_eq!(setup.app.books.rolled_back(), 1);
    assert_eq!(setup.post("/hold").await.code(), UNKNOWN);
    assert_eq!(setup.idem.running(), 0);
}

#[tokio::test]
async fn a_commit_that_hangs_in_the_background_is_ended_after_max_run() {
    let setup = limited(Duration::from_millis(200)).await;
    setup.app.books.next_commit(Commit::Waits);
    let stream = setup.server.write(post_bytes("/hold", "k", "")).await;
    setup.app.books.until_commit_waits().await;
    drop(stream);
    eventually("the attempt ends", || setup.idem.running() == 0).await;
    assert_eq!(setup.app.books.rolled_back(), 1);
    setup.drained().await;
    assert_eq!(setup.post("/hold").await.code(), UNKNOWN);
}

/// Blocks its thread for longer than `max_run`, and responds nevertheless.
#[idempotent(scope = global, max_run = "50ms")]
async fn blocks(
    State(runs): State<Runs>,
    Extension(unit): Extension<Unit>,
) -> (StatusCode, String) {
    let run = runs.count();
    unit.insert(format!("row {run}"));
    tokio::task::yield_now().await;
    std::thread::sleep(Duration::from_millis(300));
    (StatusCode::CREATED, format!("run {run}"))
}

/// Its response is not settled before the layer has tried to commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_past_max_run_still_waits_for_its_layers() {
    let app = App::default();
    let router = Router::new()
        .route("/blocks", post(blocks))
        .with_state(app.runs.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    app.books
        .next_commit(Commit::Fails(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(server.post("/blocks", "k", "").await.status, 503);
    let retry = server.post("/blocks", "k", "").await;
    assert_eq!((retry.text(), retry.is_replay()), ("run 2", false));
    assert_eq!(app.books.rows(), ["row 2"]);
}

/// Responds with a body that panics when it is read.
#[idempotent(scope = global)]
async fn panics(State(runs): State<Runs>, Extension(unit): Extension<Unit>) -> Body {
    unit.insert(format!("row {}", runs.count()));
    Body::from_stream(stream::poll_fn(
        |_| -> Poll<Option<Result<Bytes, Infallible>>> { panic!("the body panics") },
    ))
}

/// Responds with a body that never ends.
#[idempotent(scope = global)]
async fn hangs(State(runs): State<Runs>, Extension(unit): Extension<Unit>) -> Body {
    unit.insert(format!("row {}", runs.count()));
    Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
}

async fn with_bodies() -> Setup {
    let (app, idem) = (App::default(), Idempotency::in_memory());
    let router = Router::new()
        .route("/panics", post(panics))
        .route("/hangs", post(hangs))
        .with_state(app.runs.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(from_fn(panics_while_the_handler_runs))
        .layer(idem.clone())
        .layer(CatchPanicLayer::new());
    let server = Server::start(router).await;
    Setup { server, app, idem }
}

/// The handler has responded, so it does not run again, although its transaction is rolled back.
#[tokio::test]
async fn a_response_body_that_panics_is_not_run_again() {
    let setup = with_bodies().await;
    assert_eq!(setup.post("/panics").await.status, 500);
    assert_eq!(setup.app.books.rolled_back(), 1);
    setup.drained().await;
    let retry = setup.post("/panics").await;
    assert_eq!(retry.code(), "idempotency_response_not_kept");
    assert_eq!(setup.app.runs.started(), 1);
}

/// Nobody knows whether the layer would have committed.
#[tokio::test]
async fn a_layer_that_panics_while_a_response_body_is_read_leaves_the_outcome_unknown() {
    let setup = with_bodies().await;
    let panics = post_bytes("/hangs", "k", "").replacen("\r\n", "\r\nx-panics: 1\r\n", 1);
    let panics = panics.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    let answer = setup.server.write_and_read(panics).await;
    assert_eq!(crate::support::status_of(&answer), 500);
    setup.drained().await;
    assert_eq!(setup.app.books.rolled_back(), 1);
    assert!(matches!(setup.stored().await, Some(Entry::Unknown { .. })));
}

/// Responds with a status that is not recorded.
#[idempotent(scope = global, on_unknown = hold)]
async fn unavailable(State(runs): State<Runs>) -> StatusCode {
    runs.count();
    StatusCode::SERVICE_UNAVAILABLE
}

/// A layer that calls its handler again must not run a key whose outcome is unknown after a panic.
#[tokio::test]
async fn a_second_call_after_a_caught_panic_does_not_run_a_held_key() {
    static HAS_PANICKED: AtomicBool = AtomicBool::new(false);
    let runs = Runs::default();
    let panics_once = from_fn(|request: Request, next: Next| async move {
        let response = next.run(request).await;
        let is_first = !HAS_PANICKED.swap(true, Ordering::SeqCst);
        assert!(!is_first, "the layer panics after its work");
        response
    });
    let router = Router::new()
        .route("/unavailable", post(unavailable))
        .with_state(runs.clone())
        .layer(panics_once)
        .layer(CatchPanicLayer::new())
        .layer(from_fn(super::several::retries))
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    let response = server.post("/unavailable", "k", "").await;
    assert_eq!(response.code(), UNKNOWN);
    assert_eq!(runs.started(), 1);
}

/// A layer that does not know whether its own work happened says so like a handler.
#[tokio::test]
async fn a_layer_can_report_an_unknown_outcome() {
    let app = App::default();
    let doubts = from_fn(|request: Request, next: Next| async move {
        let mut response: Response = next.run(request).await;
        if response.status() == StatusCode::CREATED {
            response.extensions_mut().insert(OutcomeUnknown);
            *response.status_mut() = StatusCode::BAD_GATEWAY;
        }
        response
    });
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(doubts)
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    assert_eq!(server.post("/hold", "k", "").await.status, 502);
    assert_eq!(server.post("/hold", "k", "").await.code(), UNKNOWN);
    assert_eq!(app.runs.started(), 1);
}

const MAX_RUN: Duration = Duration::from_secs(10);

/// Fails at first. Then it takes almost as long as it may.
#[idempotent(scope = global)]
async fn slow_after_a_failure(State(runs): State<Runs>) -> Result<String, StatusCode> {
    match runs.count() {
        1 => Err(StatusCode::SERVICE_UNAVAILABLE),
        run => {
            sleep(MAX_RUN.saturating_sub(Duration::from_secs(1))).await;
            Ok(format!("run {run}"))
        }
    }
}

/// The time that the layers took after the first response must not count after the second.
#[tokio::test(start_paused = true)]
async fn the_layers_get_the_whole_limit_after_each_call_of_their_handler() {
    let commits = from_fn(|request: Request, next: Next| async move {
        let response: Response = next.run(request).await;
        sleep(Duration::from_secs(2)).await;
        response
    });
    let router = Router::new()
        .route("/slow", post(slow_after_a_failure))
        .with_state(Runs::default())
        .layer(commits)
        .layer(from_fn(super::several::retries))
        .layer(Idempotency::builder().max_run(MAX_RUN).build());
    for is_replay in [false, true] {
        let answer = support::exchange(router.clone(), support::post("/slow", "k", "")).await;
        assert_eq!((answer.text(), answer.is_replay()), ("run 2", is_replay));
    }
}

const LEASE: Duration = Duration::from_secs(6);

/// The claim that has taken over belongs to the same process, and its reply was lost. It must not be
/// settled with a response whose transaction is rolled back.
#[tokio::test(start_paused = true)]
async fn an_overtaken_response_is_not_recorded_before_its_layers_have_finished() {
    let (app, store) = (App::default(), FaultStore::new(MemoryStore::default()));
    let idem = Idempotency::builder().store(store.clone()).lease(LEASE);
    let idem = idem.build();
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(idem.clone());
    let send = || {
        tokio::spawn(support::exchange(
            router.clone(),
            support::post("/slow", "k", ""),
        ))
    };
    store.script(Operation::Renew, repeat_n(Fault::ErrBefore, 1_000));
    let overtaken = send();
    app.runs.until_started(1).await;
    sleep(LEASE + Duration::from_secs(1)).await;

    store.script(Operation::Claim, repeat_n(Fault::ErrAfter, 3));
    store.script(Operation::LookUp, repeat_n(Fault::ErrBefore, 1_000));
    assert_eq!(send().await.expect("no panic").status, 503);
    store.heal();
    store.script(Operation::LookUp, repeat_n(Fault::ErrBefore, 1_000));
    sleep(LEASE / 2).await;
    app.books
        .next_commit(Commit::Fails(StatusCode::SERVICE_UNAVAILABLE));
    app.runs.open(1);
    overtaken.await.expect("no panic");
    assert_eq!(app.books.rolled_back(), 1);

    store.heal();
    sleep(10 * LEASE).await;
    let id = idem.record_id(&Scope::new(), "k");
    let entry = idem.look_up(id).await.expect("the store works");
    assert!(matches!(entry, Some(Entry::Unknown { .. })), "{entry:?}");
}
