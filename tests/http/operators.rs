//! Tests what an operator can do with one key.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::routing::post;
use axum_idem::store::Entry;
use axum_idem::{Attempt, Idempotency, OutcomeUnknown, Scope, idempotent};
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{Runs, Server, post_bytes};

#[idempotent(scope = token)]
async fn slow(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.pass().await.to_string())
}

#[idempotent(scope = token, on_unknown = hold)]
async fn panics(State(runs): State<Runs>) -> String {
    assert!(runs.count() > 1, "the first run panics");
    "ran".into()
}

async fn start() -> (Server, Runs, Idempotency) {
    let (runs, idem) = (
        Runs::default(),
        Idempotency::builder().namespace("test").build(),
    );
    let router = Router::new()
        .route("/slow", post(slow))
        .route("/panics", post(panics))
        .layer(CatchPanicLayer::new())
        .layer(idem.clone())
        .with_state(runs.clone());
    (Server::start(router).await, runs, idem)
}

/// Adding `Duration::MAX` to an `Instant` would overflow.
#[cfg(feature = "testing")]
#[tokio::test]
async fn the_longest_durations_do_not_overflow() {
    use axum_idem::store::MemoryStore;
    use axum_idem::testing::{Fault, FaultStore, Operation};

    // The delays imitate a store behind a network.
    let store = FaultStore::new(MemoryStore::default());
    for operation in [Operation::Claim, Operation::Complete, Operation::Resolve] {
        store.script(operation, [Fault::Delay(Duration::from_millis(1)); 4]);
    }
    let runs = Runs::default();
    let idem = Idempotency::builder()
        .store(store)
        .lease(Duration::MAX)
        .store_timeout(Duration::MAX)
        .body_timeout(Duration::MAX)
        .build();
    let router = Router::new()
        .route("/slow", post(slow))
        .route("/panics", post(panics))
        .layer(CatchPanicLayer::new())
        .layer(idem.clone())
        .with_state(runs.clone());
    let server = Server::start(router).await;
    assert_eq!(server.post("/panics", "held", "").await.status, 500);
    let id = idem.record_id(&alice(), "held");
    let answer = Response::new("resolved".into());
    let resolved = idem.resolve(id, answer, Duration::MAX).await;
    assert!(resolved.expect("the store works"));
    let retry = server.post("/panics", "held", "").await;
    assert_eq!((retry.text(), retry.is_replay()), ("resolved", true));

    runs.open(1);
    assert_eq!(server.post("/slow", "k", "abc").await.text(), "2");
    assert!(server.post("/slow", "k", "abc").await.is_replay());
    assert_eq!(runs.started(), 2);
    assert_eq!(idem.drain(Duration::MAX).await, 0);
}

fn alice() -> Scope {
    Scope::new().token("Bearer alice")
}

#[tokio::test]
async fn look_up_returns_each_state_of_a_key() {
    let (server, runs, idem) = start().await;
    let id = idem.record_id(&alice(), "k");
    assert!(idem.look_up(id).await.expect("the store works").is_none());

    let stream = server.write(post_bytes("/slow", "\"k\"", "")).await;
    runs.until_started(1).await;
    let Ok(Some(Entry::InFlight {
        fence: 1,
        attempt: 1,
        lease_left,
        ..
    })) = idem.look_up(id).await
    else {
        panic!("the entry must be in flight");
    };
    assert!(lease_left <= Duration::from_secs(30));
    drop(stream);

    runs.open(1);
    idem.drain(Duration::from_secs(30)).await;
    let Ok(Some(Entry::Recorded {
        record, expires_in, ..
    })) = idem.look_up(id).await
    else {
        panic!("the entry must be recorded");
    };
    assert_eq!(
        (record.status().as_u16(), &record.body()[..]),
        (201, &b"1"[..])
    );
    assert!(expires_in > Duration::from_secs(86_000));

    let (server, _, idem) = start().await;
    server.post("/panics", "k", "").await;
    let unknown = idem.look_up(id).await;
    assert!(
        matches!(unknown, Ok(Some(Entry::Unknown { attempt: 1, .. }))),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_forgotten_key_runs_again() {
    let (server, runs, idem) = start().await;
    runs.open(2);
    server.post("/slow", "k", "").await;
    let id = idem.record_id(&alice(), "k");
    assert!(idem.forget(id).await.expect("the store works"));
    assert!(!idem.forget(id).await.expect("the store works"));
    assert_eq!(server.post("/slow", "k", "").await.text(), "2");
}

/// The first run continues, but it cannot record its response. The response of the second run is
/// recorded, and the client of the first run gets it too or is asked to wait for it.
#[tokio::test]
async fn forgetting_a_running_key_discards_the_record_of_that_run() {
    let (server, runs, idem) = start().await;
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    assert!(
        idem.forget(idem.record_id(&alice(), "k"))
            .await
            .expect("the store works")
    );
    let second = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(2).await;
    runs.open(2);
    let first = first.await.expect("no panic");
    let second = second.await.expect("no panic");
    assert_eq!((second.text(), second.is_replay()), ("2", false));
    if first.is_replay() {
        assert_eq!(first.text(), "2");
    } else {
        assert_eq!(first.code(), "idempotency_key_in_flight");
    }
    let replay = server.post("/slow", "k", "").await;
    assert_eq!((replay.text(), replay.is_replay()), ("2", true));
}

/// A long-running handler can stop when another attempt may have taken over.
#[tokio::test]
async fn a_handler_can_await_the_loss_of_its_lease() {
    #[idempotent(scope = token)]
    async fn until_lost(State(runs): State<Runs>, attempt: Attempt) -> String {
        runs.count();
        assert!(!attempt.is_lost());
        attempt.lost().await;
        format!("lost: {}", attempt.is_lost())
    }
    let runs = Runs::default();
    let idem = Idempotency::builder()
        .lease(Duration::from_millis(60))
        .build();
    let router = Router::new()
        .route("/", post(until_lost))
        .layer(idem.clone())
        .with_state(runs.clone());
    let server = Server::start(router).await;
    let first = tokio::spawn(async move { server.post("/", "k", "").await });
    runs.until_started(1).await;
    assert!(
        idem.forget(idem.record_id(&alice(), "k"))
            .await
            .expect("the store works")
    );
    assert_eq!(first.await.expect("no panic").text(), "lost: true");
}

#[tokio::test]
async fn an_unknown_outcome_can_be_resolved_with_a_response() {
    let (server, runs, idem) = start().await;
    server.post("/panics", "k", "").await;
    assert_eq!(
        server.post("/panics", "k", "").await.code(),
        "idempotency_outcome_unknown"
    );
    let answer = || {
        let answer = Response::builder()
            .status(201)
            .header("set-cookie", "a=b")
            .header("location", "/1");
        answer.body("done".into()).expect("a valid response")
    };
    let id = idem.record_id(&alice(), "k");
    let ttl = Duration::from_secs(60);
    assert!(
        idem.resolve(id, answer(), ttl)
            .await
            .expect("the store works")
    );
    assert!(
        !idem
            .resolve(id, answer(), ttl)
            .await
            .expect("the store works")
    );
    let replay = server.post("/panics", "k", "").await;
    assert_eq!(
        (replay.status.as_u16(), replay.text(), replay.is_replay()),
        (201, "done", true)
    );
    assert_eq!(replay.headers["location"], "/1");
    assert!(!replay.headers.contains_key("set-cookie"));
    assert_eq!(
        server.post("/panics", "k", "other").await.code(),
        "idempotency_key_reused"
    );
    assert_eq!(runs.started(), 1);
}

/// An operator has looked at the first attempt. A retry has run a second one, whose outcome is unknown too.
#[tokio::test]
async fn a_decision_about_an_earlier_attempt_has_no_effect() {
    #[idempotent(scope = token, on_unknown = rerun)]
    async fn always_unknown(State(runs): State<Runs>) -> (OutcomeUnknown, &'static str) {
        runs.count();
        (OutcomeUnknown, "nobody knows")
    }
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    let router = Router::new()
        .route("/", post(always_unknown))
        .layer(idem.clone())
        .with_state(runs.clone());
    let server = Server::start(router).await;
    let id = idem.record_id(&alice(), "k");
    let fence = async || match idem.look_up(id).await {
        Ok(Some(Entry::Unknown { fence, .. })) => fence,
        other => panic!("{other:?}"),
    };
    server.post("/", "k", "").await;
    let seen = fence().await;
    server.post("/", "k", "").await;
    let resolve = |fence| {
        let answer = Response::new("not booked".into());
        idem.resolve_attempt(id, fence, answer, Duration::from_secs(60))
    };
    assert!(!resolve(seen).await.expect("the store works"));
    let now = fence().await;
    assert!(now > seen);
    assert!(resolve(now).await.expect("the store works"));
    let retry = server.post("/", "k", "").await;
    assert_eq!((retry.text(), retry.is_replay()), ("not booked", true));
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn an_unknown_outcome_can_be_forgotten_and_run_again() {
    let (server, _, idem) = start().await;
    server.post("/panics", "k", "").await;
    assert!(
        idem.forget(idem.record_id(&alice(), "k"))
            .await
            .expect("the store works")
    );
    assert_eq!(server.post("/panics", "k", "").await.text(), "ran");
}

#[tokio::test]
async fn only_an_unknown_outcome_can_be_resolved() {
    let (server, runs, idem) = start().await;
    let id = idem.record_id(&alice(), "k");
    let resolve = || idem.resolve(id, Response::new("x".into()), Duration::from_secs(60));
    assert!(!resolve().await.expect("the store works"));
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    assert!(!resolve().await.expect("the store works"));
    runs.open(1);
    first.await.expect("no panic");
    assert!(!resolve().await.expect("the store works"));
    assert_eq!(server.post("/slow", "k", "").await.text(), "1");
}
