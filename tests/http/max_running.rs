//! How many attempts run at once, whether or not their clients are still there.

use std::iter::repeat_n;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{Method, StatusCode};
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore};
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Idempotency, OnStoreError, Scope, idempotent};
use tokio::task::JoinHandle;
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{self, Answer, Runs, Server, eventually, post_bytes, request};

const BUSY: &str = "idempotency_busy";
const LEASE: Duration = Duration::from_secs(30);

#[idempotent(scope = token)]
async fn slow(State(runs): State<Runs>, body: Bytes) -> (StatusCode, String) {
    let run = runs.pass().await;
    (StatusCode::CREATED, format!("{run}: {} bytes", body.len()))
}

#[idempotent(scope = token, in_flight = wait("60s"))]
async fn waits(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.pass().await.to_string())
}

#[idempotent(scope = token)]
async fn panics(State(runs): State<Runs>) -> StatusCode {
    runs.pass().await;
    std::panic::resume_unwind(Box::new("told to panic"))
}

struct Refused;

impl FromRequest<Runs> for Refused {
    type Rejection = StatusCode;

    async fn from_request(_: Request, runs: &Runs) -> Result<Self, StatusCode> {
        runs.pass().await;
        Err(StatusCode::UNPROCESSABLE_ENTITY)
    }
}

#[idempotent(scope = token)]
async fn refuses(_: Refused) -> StatusCode {
    StatusCode::CREATED
}

#[idempotent(scope = token, max_run = "100ms")]
async fn hangs(State(runs): State<Runs>) -> StatusCode {
    runs.pass().await;
    StatusCode::CREATED
}

struct Setup {
    router: Router,
    runs: Runs,
    idem: Idempotency,
    store: FaultStore<MemoryStore>,
}

fn start(max: usize) -> Setup {
    let (runs, store) = (Runs::default(), FaultStore::new(MemoryStore::default()));
    let idem = Idempotency::builder().store(store.clone()).lease(LEASE);
    let idem = idem.max_running(max).build();
    let router = Router::new()
        .route("/slow", post(slow))
        .route("/waits", post(waits))
        .route("/panics", post(panics))
        .route("/refuses", post(refuses))
        .route("/hangs", post(hangs))
        .layer(CatchPanicLayer::new())
        .layer(idem.clone())
        .with_state(runs.clone());
    Setup {
        router,
        runs,
        idem,
        store,
    }
}

impl Setup {
    async fn post(&self, path: &str, key: &str) -> Answer {
        support::exchange(self.router.clone(), support::post(path, key, "")).await
    }

    fn spawn(&self, path: &'static str, key: &'static str) -> JoinHandle<Answer> {
        let router = self.router.clone();
        tokio::spawn(support::exchange(router, support::post(path, key, "")))
    }

    async fn until_running(&self, attempts: usize) {
        eventually("as many attempts run", || self.idem.running() == attempts).await;
    }
}

#[tokio::test]
async fn a_run_whose_client_has_left_counts_until_it_ends() {
    let setup = start(2);
    let server = Server::start(setup.router.clone()).await;
    assert_eq!(setup.idem.running(), 0);
    for run in 1..=2 {
        let stream = server
            .write(post_bytes("/slow", &run.to_string(), ""))
            .await;
        setup.runs.until_started(run).await;
        drop(stream);
    }
    assert_eq!(setup.idem.running(), 2);
    let refused = server.post("/slow", "3", "").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, BUSY)
    );
    assert_eq!(refused.headers["retry-after"], "1");
    setup.runs.open(2);
    setup.until_running(0).await;
    setup.runs.open(1);
    assert_eq!(server.post("/slow", "3", "").await.status, 201);
    for run in 1..=2 {
        assert!(server.post("/slow", &run.to_string(), "").await.is_replay());
    }
    assert_eq!((setup.idem.running(), setup.runs.started()), (0, 3));
}

#[tokio::test]
async fn while_all_run_a_replay_is_refused_and_a_request_without_a_key_runs() {
    let setup = start(1);
    setup.runs.open(1);
    setup.post("/slow", "recorded").await;
    let running = setup.spawn("/slow", "running");
    setup.runs.until_started(2).await;
    for key in ["recorded", "running", "new"] {
        assert_eq!(setup.post("/slow", key).await.code(), BUSY, "{key}");
    }
    setup.runs.open(2);
    let unkeyed = request(Method::POST, "/slow", [], "");
    let unkeyed = support::exchange(setup.router.clone(), unkeyed).await;
    assert_eq!(unkeyed.status, 201);
    assert_eq!(running.await.expect("no panic").status, 201);
    assert!(setup.post("/slow", "recorded").await.is_replay());
}

#[tokio::test]
async fn only_a_fresh_claim_keeps_its_permit() {
    let setup = start(2);
    setup.runs.open(1);
    setup.post("/slow", "recorded").await;
    let _running = setup.spawn("/slow", "running");
    setup.runs.until_started(2).await;
    // More often than there are permits.
    for _ in 0..3 {
        assert!(setup.post("/slow", "recorded").await.is_replay());
        let in_flight = setup.post("/slow", "running").await;
        assert_eq!(in_flight.code(), "idempotency_key_in_flight");
        let other = support::post("/slow", "recorded", "other");
        let reused = support::exchange(setup.router.clone(), other).await;
        assert_eq!(reused.code(), "idempotency_key_reused");
        setup.store.script(Operation::Claim, [Fault::ErrBefore; 3]);
        let failed = setup.post("/slow", "new").await;
        assert_eq!(failed.code(), "idempotency_store_unavailable");
        assert_eq!(setup.idem.running(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_the_first_one_does_not_count() {
    let setup = start(2);
    let first = setup.spawn("/waits", "k");
    setup.runs.until_started(1).await;
    let mut waiters = Vec::new();
    for _ in 0..5 {
        waiters.push(setup.spawn("/waits", "k"));
        // By now the store has replied that the first request still runs.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(setup.idem.running(), 1);
    }
    let other = setup.spawn("/waits", "other");
    setup.runs.until_started(2).await;
    assert_eq!(setup.idem.running(), 2);
    setup.runs.open(1);
    assert_eq!(first.await.expect("no panic").status, 201);
    for waiter in waiters {
        let waited = waiter.await.expect("no panic");
        assert!(waited.is_replay(), "{waited:?}");
    }
    setup.runs.open(1);
    assert_eq!(other.await.expect("no panic").status, 201);
    assert_eq!((setup.idem.running(), setup.runs.started()), (0, 2));
}

/// The first request ends by a panic, and each other permit is taken.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_is_refused_when_no_permit_is_free_in_time() {
    let setup = start(2);
    let first = setup.spawn("/waits", "k");
    setup.runs.until_started(1).await;
    let waiter = setup.spawn("/waits", "k");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = setup
        .idem
        .record_id(&Scope::new().token("Bearer alice"), "k");
    let _other = setup.spawn("/slow", "other");
    setup.runs.until_started(2).await;
    setup.idem.forget(id).await.expect("memory does not fail");
    let refused = waiter.await.expect("no panic");
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, BUSY)
    );
    setup.runs.open(2);
    first.await.expect("no panic");
    setup.until_running(0).await;
}

#[tokio::test]
async fn a_permit_comes_back_after_a_panic() {
    let setup = start(1);
    let server = Server::start(setup.router.clone()).await;
    for run in 1..=3 {
        setup.runs.open(1);
        assert_eq!(server.post("/panics", "k", "").await.status, 500);
        assert_eq!((setup.idem.running(), setup.runs.started()), (0, run));
    }
    // In the background too.
    let stream = server.write(post_bytes("/panics", "k", "")).await;
    setup.runs.until_started(4).await;
    drop(stream);
    setup.runs.open(1);
    setup.until_running(0).await;
    setup.runs.open(1);
    assert_eq!(server.post("/slow", "other", "").await.status, 201);
}

#[tokio::test]
async fn a_permit_comes_back_after_a_refused_body() {
    let setup = start(1);
    let server = Server::start(setup.router.clone()).await;
    for run in 1..=3 {
        setup.runs.open(1);
        assert_eq!(server.post("/refuses", "k", "").await.status, 422);
        assert_eq!((setup.idem.running(), setup.runs.started()), (0, run));
    }
    // When its client leaves before, too.
    let stream = server.write(post_bytes("/refuses", "k", "")).await;
    setup.runs.until_started(4).await;
    drop(stream);
    setup.until_running(0).await;
}

#[tokio::test]
async fn a_permit_comes_back_after_an_ended_run() {
    let setup = start(1);
    let server = Server::start(setup.router.clone()).await;
    for run in 1..=3 {
        assert_eq!(server.post("/hangs", "k", "").await.status, 504);
        assert_eq!((setup.idem.running(), setup.runs.started()), (0, run));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_after_a_lost_lease_when_the_handler_ends() {
    let setup = start(2);
    let failed = repeat_n(Fault::ErrBefore, 1_000);
    setup.store.script(Operation::Renew, failed);
    let first = setup.spawn("/slow", "k");
    setup.runs.until_started(1).await;
    tokio::time::sleep(LEASE).await;
    let second = setup.spawn("/slow", "k");
    setup.runs.until_started(2).await;
    setup.store.heal();
    // The first attempt learns of its loss, and runs on.
    tokio::time::sleep(LEASE).await;
    assert_eq!(setup.idem.running(), 2);
    assert_eq!(setup.post("/slow", "new").await.code(), BUSY);
    setup.runs.open(2);
    for attempt in [first, second] {
        assert_eq!(attempt.await.expect("no panic").status, 201);
    }
    assert_eq!(setup.idem.running(), 0);
    setup.runs.open(1);
    assert_eq!(setup.post("/slow", "new").await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_when_a_client_leaves_while_the_store_is_asked() {
    let setup = start(1);
    setup.store.script(Operation::Claim, [Fault::Hang]);
    let asking = setup.spawn("/slow", "k");
    setup.until_running(1).await;
    asking.abort();
    assert!(asking.await.is_err());
    assert_eq!(setup.idem.running(), 0);
}

/// The record waits for the store in the background, and nothing of the handler runs.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_late_keeps_no_permit() {
    let setup = start(1);
    setup.runs.open(2);
    let failed = repeat_n(Fault::ErrBefore, 1_000);
    setup.store.script(Operation::Complete, failed);
    assert!(setup.post("/slow", "k").await.is_unrecorded());
    assert_eq!(setup.idem.running(), 0);
    assert!(setup.post("/slow", "k").await.is_replay());
    assert_eq!(setup.idem.running(), 0);
    setup.store.heal();
    assert_eq!(setup.idem.drain(Duration::MAX).await, 0);
    let id = setup
        .idem
        .record_id(&Scope::new().token("Bearer alice"), "k");
    let entry = setup.idem.look_up(id).await;
    assert!(
        matches!(entry, Ok(Some(Entry::Recorded { .. }))),
        "{entry:?}"
    );
}

/// The store has failed, so nothing is claimed, and the limit does not apply.
#[tokio::test]
async fn a_run_without_protection_does_not_count() {
    let (runs, store) = (Runs::default(), FaultStore::new(MemoryStore::default()));
    store.script(Operation::Claim, repeat_n(Fault::ErrBefore, 100));
    let idem = Idempotency::builder().store(store).max_running(1);
    let idem = idem.on_store_error(OnStoreError::FailOpen).build();
    let router = Router::new()
        .route("/slow", post(slow))
        .layer(idem.clone())
        .with_state(runs.clone());
    let mut requests = Vec::new();
    for (started, key) in [(1, "a"), (2, "b")] {
        let request = support::post("/slow", key, "");
        requests.push(tokio::spawn(support::exchange(router.clone(), request)));
        runs.until_started(started).await;
        assert_eq!(idem.running(), 0);
    }
    runs.open(2);
    for request in requests {
        let response = request.await.expect("no panic");
        assert_eq!(response.status, 201);
        assert!(response.headers.contains_key("idempotency-degraded"));
    }
}
