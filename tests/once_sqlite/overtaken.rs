//! An attempt and the attempt that takes over from it: of the two, one commits.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::{Attempt, idempotent};

use crate::bank::{Bank, Paid, Service};

const SHORT_LEASE: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The first attempt waits for the test before its transaction.
#[idempotent(scope = token, transactional)]
async fn late(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    if attempt.number() == 1 {
        bank.runs.pass().await;
    }
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", attempt.number());
    Bank::pay(&mut tx, &run).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
    Ok(bank.note(response)?)
}

/// The same with `record_in`, which does not ask the store.
#[idempotent(scope = token, transactional)]
async fn late_record(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    if attempt.number() == 1 {
        bank.runs.pass().await;
    }
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", attempt.number());
    Bank::pay(&mut tx, &run).await?;
    let recorded = attempt.record_in(&mut *tx, (StatusCode::CREATED, run));
    let response = bank.note(recorded.await)?;
    tx.commit().await?;
    Ok(response)
}

/// The first attempt reads in a deferred transaction, and waits before it writes.
#[idempotent(scope = token, transactional)]
async fn stale(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let run = format!("{body} {}", attempt.number());
    if attempt.number() > 1 {
        let mut tx = bank.begin().await?;
        Bank::pay(&mut tx, &run).await?;
        let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
        return Ok(bank.note(response)?);
    }
    let other = crate::bank::pool((*bank.pool.connect_options()).clone()).await;
    let mut tx = other.begin().await?;
    let read = sqlx::query("SELECT count(*) FROM payments");
    read.fetch_one(&mut *tx).await?;
    bank.runs.pass().await;
    let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
    Ok(bank.note(response)?)
}

/// Holds the write lock until the test continues.
#[idempotent(scope = token, transactional)]
async fn locked(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", attempt.number());
    Bank::pay(&mut tx, &run).await?;
    bank.runs.pass().await;
    let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
    Ok(bank.note(response)?)
}

/// Commits, and then works on for longer than its lease.
#[idempotent(scope = token, transactional)]
async fn works_on(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let response = if body == "recorded" {
        let response = attempt.record_in(&mut *tx, body).await?;
        tx.commit().await?;
        response
    } else {
        attempt.commit(tx, body).await?
    };
    let is_lost = tokio::time::timeout(2 * SHORT_LEASE, attempt.lost()).await;
    assert!(is_lost.is_err(), "no other attempt has taken over");
    Ok(response)
}

async fn start() -> Service {
    let busy_timeout = Duration::from_secs(2);
    with(crate::bank::LEASE, busy_timeout).await
}

async fn with(lease: Duration, busy_timeout: Duration) -> Service {
    let routes = Router::new()
        .route("/late", post(late))
        .route("/late_record", post(late_record))
        .route("/stale", post(stale))
        .route("/locked", post(locked))
        .route("/works_on", post(works_on));
    Service::with(routes, lease, busy_timeout).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_overtaken_before_its_commit_has_no_effect() {
    for path in ["/late", "/late_record", "/stale"] {
        let service = start().await;
        let server = service.server;
        let overtaken = tokio::spawn(async move { server.post(path, "k", "x").await });
        service.bank.runs.until_started(1).await;
        service.lapse().await;
        let second = server.post(path, "k", "x").await;
        assert_eq!((second.status, second.text()), (StatusCode::CREATED, "x 2"));
        service.bank.runs.open(1);
        let first = overtaken.await.expect("no panic");
        let results = service.bank.take_results();
        // A snapshot that is older than the last commit cannot write.
        let refused = if path == "/stale" {
            "Database"
        } else {
            "Overtaken"
        };
        assert_eq!(results, ["Ok", refused], "{path}");
        assert!(
            first.is_replay() && first.text() == "x 2",
            "{path}: {first:?}"
        );
        assert_eq!(service.bank.payments().await, ["x 2"], "{path}");
        assert!(server.post(path, "k", "x").await.is_replay());
    }
}

/// The row of the claim becomes the row of the record, so the lease ends with the commit.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_has_committed_is_not_reported_as_lost() {
    let service = with(SHORT_LEASE, Duration::from_secs(2)).await;
    for body in ["committed", "recorded"] {
        let first = service.server.post("/works_on", body, body).await;
        assert_eq!((first.status, first.text()), (StatusCode::OK, body));
        assert!(!first.is_replay(), "{first:?}");
        assert!(
            service
                .server
                .post("/works_on", body, body)
                .await
                .is_replay()
        );
    }
    assert_eq!(service.bank.payments().await, ["committed", "recorded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_key_was_resolved_or_forgotten_has_no_effect() {
    for forgets in [false, true] {
        let service = start().await;
        let server = service.server;
        let first = tokio::spawn(async move { server.post("/late", "k", "x").await });
        service.bank.runs.until_started(1).await;
        service.lapse().await;
        if forgets {
            let forgotten = service.idem.forget(service.id("k")).await;
            assert!(forgotten.expect("the store replies"));
        } else {
            let response = http::Response::builder()
                .status(StatusCode::GONE)
                .body(Bytes::from_static(b"resolved"));
            let response = response.expect("a response");
            let resolved = service.idem.resolve(service.id("k"), response, HOUR);
            assert!(resolved.await.expect("the store replies"));
        }
        service.bank.runs.open(1);
        let first = first.await.expect("no panic");
        assert_eq!(service.bank.take_results(), ["Overtaken"]);
        assert!(service.bank.payments().await.is_empty());
        assert_eq!(first.text() == "resolved", !forgets, "{first:?}");
    }
}

/// The store cannot write meanwhile, so it renews the lease without a write.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_longer_than_the_lease_is_not_overtaken() {
    let (lease, busy_timeout) = (Duration::from_millis(900), Duration::from_millis(200));
    let service = with(lease, busy_timeout).await;
    let server = service.server;
    let first = tokio::spawn(async move { server.post("/locked", "k", "x").await });
    service.bank.runs.until_started(1).await;
    tokio::time::sleep(3 * lease).await;
    let retry = server.post("/locked", "k", "x").await;
    assert_eq!(retry.status, StatusCode::CONFLICT, "{retry:?}");
    // A new claim waits for the lock.
    let other = server.post("/locked", "other", "y").await;
    assert_eq!(other.code(), "idempotency_store_unavailable", "{other:?}");
    service.bank.runs.open(1);
    let first = first.await.expect("no panic");
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "x 1"));
    assert!(server.post("/locked", "k", "x").await.is_replay());
    assert_eq!(service.bank.payments().await, ["x 1"]);
}
