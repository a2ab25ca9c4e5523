//! Tests duplicates that arrive while the first request still runs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use futures_util::future::join_all;

use crate::support::{Answer, Runs, Server, eventually, post_bytes};

#[idempotent(scope = global)]
async fn reject(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.pass().await.to_string())
}

#[idempotent(scope = global, in_flight = wait("30s"))]
async fn wait(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.pass().await.to_string())
}

#[idempotent(scope = global, in_flight = wait("50ms"))]
async fn wait_briefly(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

/// The first run fails.
#[idempotent(scope = global, in_flight = wait("30s"))]
async fn fail_once(State(runs): State<Runs>) -> Result<String, StatusCode> {
    match runs.pass().await {
        1 => Err(StatusCode::SERVICE_UNAVAILABLE),
        run => Ok(run.to_string()),
    }
}

/// Counts the requests that the service has not dropped.
#[derive(Clone, Default)]
struct Alive(Arc<()>);

impl Alive {
    fn count(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl FromRequestParts<(Runs, Alive)> for Alive {
    type Rejection = Infallible;

    async fn from_request_parts(
        _: &mut Parts,
        (_, alive): &(Runs, Self),
    ) -> Result<Self, Infallible> {
        Ok(alive.clone())
    }
}

/// The first run fails, so the next waiter may run.
#[idempotent(scope = global, in_flight = wait("30s"))]
async fn fail_once_alive(
    _: Alive,
    State((runs, _)): State<(Runs, Alive)>,
) -> Result<String, StatusCode> {
    match runs.pass().await {
        1 => Err(StatusCode::SERVICE_UNAVAILABLE),
        run => Ok(run.to_string()),
    }
}

async fn start() -> (Server, Runs) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/reject", post(reject))
        .route("/wait", post(wait))
        .route("/wait-briefly", post(wait_briefly))
        .route("/fail-once", post(fail_once))
        .layer(Idempotency::in_memory())
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

async fn hundred(server: Server, path: &'static str) -> Vec<Answer> {
    let requests: Vec<_> = (0..100)
        .map(|_| tokio::spawn(async move { server.post(path, "k", "").await }))
        .collect();
    let answers = join_all(requests).await;
    answers
        .into_iter()
        .map(|answer| answer.expect("no panic"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_duplicates_of_a_running_request_get_409() {
    let (server, runs) = start().await;
    let first = tokio::spawn(async move { server.post("/reject", "k", "").await });
    runs.until_started(1).await;
    for answer in hundred(server, "/reject").await {
        assert_eq!(answer.status, 409);
        assert_eq!(answer.code(), "idempotency_key_in_flight");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert!(server.post("/reject", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_racing_duplicates_run_once() {
    let (server, runs) = start().await;
    runs.open(100);
    let answers = hundred(server, "/reject").await;
    assert_eq!(runs.started(), 1);
    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer.status == 201 && !answer.is_replay())
            .count(),
        1
    );
    for answer in answers {
        assert!(answer.status == 201 || answer.status == 409);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_waiters_get_the_response_of_the_first_run() {
    let (server, runs) = start().await;
    let opener = {
        let runs = runs.clone();
        tokio::spawn(async move {
            runs.until_started(1).await;
            runs.open(1);
        })
    };
    let answers = hundred(server, "/wait").await;
    opener.await.expect("no panic");
    assert_eq!(runs.started(), 1);
    assert_eq!(
        answers.iter().filter(|answer| !answer.is_replay()).count(),
        1
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 && answer.text() == "1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_release_one_waiter_runs_and_the_others_get_its_response() {
    let (server, runs) = start().await;
    let requests: Vec<_> = (0..5)
        .map(|_| tokio::spawn(async move { server.post("/fail-once", "k", "").await }))
        .collect();
    runs.until_started(1).await;
    runs.open(5);
    let answers: Vec<_> = join_all(requests)
        .await
        .into_iter()
        .map(|answer| answer.expect("no panic"))
        .collect();
    let count = |status, is_replay| {
        answers
            .iter()
            .filter(|answer| answer.status == status && answer.is_replay() == is_replay)
            .count()
    };
    assert_eq!(
        (count(503, false), count(200, false), count(200, true)),
        (1, 1, 3)
    );
    assert_eq!(runs.started(), 2);
}

/// Regression of another library: its waiters removed the entry that they waited for, so a third
/// request ran.
#[tokio::test]
async fn a_waiter_that_times_out_does_not_affect_the_run() {
    let (server, runs) = start().await;
    let first = tokio::spawn(async move { server.post("/wait-briefly", "k", "").await });
    runs.until_started(1).await;
    for _ in 0..3 {
        assert_eq!(
            server.post("/wait-briefly", "k", "").await.code(),
            "idempotency_key_in_flight"
        );
    }
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_waiter_that_disconnects_does_not_affect_the_run() {
    let (server, runs) = start().await;
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    for _ in 0..10 {
        drop(server.write(post_bytes("/wait", "k", "")).await);
    }
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert!(server.post("/wait", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

/// A waiter runs no handler, so nothing of it continues in the background. The key is free after the first
/// run, but a waiter without a client does not take it.
#[tokio::test]
async fn a_waiter_is_dropped_when_its_client_disconnects() {
    let (runs, alive, idem) = (Runs::default(), Alive::default(), Idempotency::in_memory());
    let router = Router::new()
        .route("/", post(fail_once_alive))
        .layer(idem.clone())
        .with_state((runs.clone(), alive.clone()));
    // The router holds clones of the state, and each request holds some while it waits.
    let server = Server::start(router).await;
    let idle = alive.count();
    let first = tokio::spawn(async move { server.post("/", "k", "").await });
    runs.until_started(1).await;
    let with_the_first = alive.count();
    let mut waiters = Vec::new();
    for _ in 0..10 {
        let before = alive.count();
        waiters.push(server.write(post_bytes("/", "k", "")).await);
        eventually("the waiter waits", || alive.count() > before).await;
    }
    drop(waiters);
    eventually("the waiters are dropped", || {
        alive.count() == with_the_first
    })
    .await;
    assert_eq!((runs.started(), runs.finished()), (1, 0));
    runs.open(2);
    assert_eq!(first.await.expect("no panic").status, 503);
    eventually("the first request is dropped", || alive.count() == idle).await;
    assert_eq!(idem.running(), 0);
    assert_eq!(runs.started(), 1);
    assert_eq!(server.post("/", "k", "").await.text(), "2");
}

#[tokio::test]
async fn a_mismatch_is_reported_while_the_first_request_runs() {
    let (server, runs) = start().await;
    let first = tokio::spawn(async move { server.post("/wait", "k", "a").await });
    runs.until_started(1).await;
    assert_eq!(
        server.post("/wait", "k", "b").await.code(),
        "idempotency_key_reused"
    );
    runs.open(1);
    assert_eq!(first.await.expect("no panic").status, 201);
}

#[tokio::test]
async fn requests_with_different_keys_run_concurrently() {
    let (server, runs) = start().await;
    let requests = (0..50)
        .map(|key| tokio::spawn(async move { server.post("/reject", &key.to_string(), "").await }));
    let requests: Vec<_> = requests.collect();
    // All requests must be inside their handlers before the first one may leave.
    runs.until_started(50).await;
    runs.open(50);
    for answer in join_all(requests).await {
        assert_eq!(answer.expect("no panic").status, 201);
    }
}

/// The lease is much shorter than the run, so it must be renewed.
#[tokio::test]
async fn a_handler_may_run_longer_than_its_lease_and_its_ttl() {
    #[idempotent(scope = global, ttl = "20ms")]
    async fn long(State(runs): State<Runs>) -> String {
        runs.pass().await.to_string()
    }
    let runs = Runs::default();
    let idem = Idempotency::builder()
        .lease(Duration::from_millis(300))
        .build();
    let router = Router::new()
        .route("/long", post(long))
        .layer(idem)
        .with_state(runs.clone());
    let server = Server::start(router).await;
    let first = tokio::spawn(async move { server.post("/long", "k", "").await });
    runs.until_started(1).await;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(
            server.post("/long", "k", "").await.code(),
            "idempotency_key_in_flight"
        );
    }
    runs.open(2);
    assert_eq!(first.await.expect("no panic").text(), "1");
    eventually("the record expires", || true).await;
    loop {
        let answer = server.post("/long", "k", "").await;
        if !answer.is_replay() {
            assert_eq!(answer.text(), "2");
            break;
        }
    }
}
