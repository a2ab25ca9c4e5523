//! Transactions that commit after a later attempt has been granted the key: the first outcome stays the only one.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use axum_idem::store::Entry;
use axum_idem::{Attempt, Idempotency, idempotent};
use bytes::Bytes;

use crate::bank::{Bank, LEASE, Paid, Service, is_unknown, key, lapse, store};
use crate::servers::eventually_async;
use crate::servers::postgres::PostgresServer;
use crate::support::{Answer, Server};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// The first attempt pays, and waits for the test before it commits. Later attempts do not pay.
#[idempotent(scope = token, transactional)]
async fn late(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    if attempt.number() > 1 {
        bank.runs.count();
        return if body.starts_with("impatient") {
            impatient(&bank, &attempt).await
        } else if body.starts_with("unavailable") {
            Ok(StatusCode::SERVICE_UNAVAILABLE.into_response())
        } else {
            Ok((StatusCode::UNPROCESSABLE_ENTITY, "a later attempt").into_response())
        };
    }
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let response = (StatusCode::CREATED, body.clone());
    if body.starts_with("snapshot") {
        // Sees its own claim even when another attempt has taken over.
        bank.runs.pass().await;
        return Ok(bank.tell(attempt.commit(tx, response).await)?);
    }
    let response = bank.tell(attempt.record_in(&mut *tx, response).await)?;
    bank.runs.pass().await;
    if body.starts_with("undone") {
        tx.rollback().await?;
    } else {
        tx.commit().await?;
    }
    Ok(response)
}

/// Waits for the record of the first attempt, but not for long.
async fn impatient(bank: &Bank, attempt: &Attempt) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, "a second payment").await?;
    sqlx::query("SET LOCAL statement_timeout = '200ms'")
        .execute(&mut *tx)
        .await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, "impatient"));
    Ok(bank.tell(response.await)?)
}

async fn start(postgres: &PostgresServer, level: &'static str) -> Service {
    let bank = Bank::open(&postgres.url()).await.isolated(level);
    let more = Router::new().route("/late", post(late));
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    Service::with(bank, settings.lease(LEASE), more).await
}

fn send(server: Server, body: &str) -> tokio::task::JoinHandle<Answer> {
    let body = body.to_owned();
    tokio::spawn(async move { server.post("/late", &key(&body), &body).await })
}

/// Starts a first attempt, lets it wait for the test, and ends its lease.
async fn lapsed(
    postgres: &PostgresServer,
    service: &Service,
    body: &str,
) -> tokio::task::JoinHandle<Answer> {
    let started = service.bank.runs.started();
    let first = send(service.server, body);
    service.bank.runs.until_started(started + 1).await;
    lapse(postgres);
    first
}

/// The first attempt may commit or roll back. Until then, the second attempt cannot be recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_is_recorded_only_when_no_earlier_transaction_can_commit() {
    let postgres = PostgresServer::start();
    let service = start(&postgres, "READ COMMITTED").await;
    for body in ["done", "undone"] {
        let first = lapsed(&postgres, &service, body).await;
        let second = send(service.server, body);
        eventually_async("the second attempt waits", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity
                WHERE wait_event_type = 'Lock' AND application_name = 'axum-idem'";
            (postgres.command(waiting) == "1" || second.is_finished()).then_some(())
        })
        .await;
        assert!(!second.is_finished(), "{body}: {:?}", second.await);
        service.bank.runs.open(1);
        let first = first.await.expect("no panic");
        let second = second.await.expect("no panic");
        let replay = service.server.post("/late", body, body).await;
        let status = if body == "done" {
            StatusCode::CREATED
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        // The second attempt may not be recorded yet when the first one is rolled back.
        assert!(
            first.status == status || first.code() == "idempotency_key_in_flight",
            "{body}: {first:?}"
        );
        for response in [second, replay] {
            assert_eq!(response.status, status, "{body}: {response:?}");
        }
    }
    assert_eq!(service.bank.payments().await, ["done"]);
}

/// The record of a later attempt has no effect, and is recorded outside of any transaction.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_snapshot_cannot_commit_after_a_later_attempt_was_recorded() {
    let postgres = PostgresServer::start();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let service = start(&postgres, level).await;
        let body = &format!("snapshot {level}");
        let first = lapsed(&postgres, &service, body).await;
        let second = service.server.post("/late", &key(body), body).await;
        assert_eq!(second.status, StatusCode::UNPROCESSABLE_ENTITY);
        service.bank.runs.open(1);
        let first = first.await.expect("no panic");
        let told = service.bank.told();
        // Under SERIALIZABLE, the server may report a serialization failure.
        assert!(told == ["Overtaken"] || told == ["Database"], "{told:?}");
        assert_ne!(first.status, StatusCode::CREATED);
        let replay = service.server.post("/late", &key(body), body).await;
        assert!(
            replay.is_replay() && replay.body == second.body,
            "{level}: {replay:?}"
        );
        assert!(service.bank.payments().await.is_empty());
    }
}

/// An operator decides about a key whose transaction is still open.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_snapshot_cannot_commit_after_its_key_was_resolved() {
    let postgres = PostgresServer::start();
    let service = start(&postgres, "REPEATABLE READ").await;
    let body = "snapshot";
    let first = lapsed(&postgres, &service, body).await;
    let resolved = service
        .idem
        .resolve(
            service.id(body),
            http::Response::builder()
                .status(StatusCode::GONE)
                .body(Bytes::from_static(b"resolved"))
                .expect("a response"),
            HOUR,
        )
        .await;
    assert!(resolved.expect("postgres is there"), "it was unknown");
    service.bank.runs.open(1);
    first.await.expect("no panic");
    assert_eq!(service.bank.told(), ["Overtaken"]);
    let replay = service.server.post("/late", body, body).await;
    assert!(
        replay.is_replay() && replay.status == StatusCode::GONE,
        "{replay:?}"
    );
    assert!(service.bank.payments().await.is_empty());
}

/// A released key would count its attempts from 1 again.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_that_is_not_recorded_leaves_the_key_unknown() {
    let postgres = PostgresServer::start();
    let service = start(&postgres, "READ COMMITTED").await;
    let body = "unavailable";
    let first = lapsed(&postgres, &service, body).await;
    for number in [2, 3] {
        let later = service.server.post("/late", body, body).await;
        assert_eq!(later.status, StatusCode::SERVICE_UNAVAILABLE);
        let entry = service.entry(body).await;
        assert!(
            matches!(entry, Some(Entry::Unknown { attempt, .. }) if attempt == number),
            "{entry:?}"
        );
    }
    service.bank.runs.open(1);
    assert_eq!(first.await.expect("no panic").status, StatusCode::CREATED);
    let replay = service.server.post("/late", body, body).await;
    assert!(
        replay.is_replay() && replay.status == StatusCode::CREATED,
        "{replay:?}"
    );
    assert_eq!(service.bank.payments().await, ["unavailable"]);
}

/// The statement that records never reached `COMMIT`, so nothing is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_while_recording_is_an_error_of_the_database() {
    let postgres = PostgresServer::start();
    let service = start(&postgres, "READ COMMITTED").await;
    let body = "impatient";
    let first = lapsed(&postgres, &service, body).await;
    service.bank.take_told();
    let second = service.server.post("/late", body, body).await;
    assert_eq!(service.bank.take_told(), ["Database"]);
    assert_eq!(second.code(), "idempotency_commit_failed", "{second:?}");
    assert!(is_unknown(service.entry(body).await.as_ref()));
    service.bank.runs.open(1);
    assert_eq!(first.await.expect("no panic").status, StatusCode::CREATED);
    let replay = service.server.post("/late", body, body).await;
    assert!(replay.is_replay(), "{replay:?}");
    assert_eq!(service.bank.payments().await, ["impatient"]);
}
