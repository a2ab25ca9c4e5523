//! Commits whose reply is lost, held back, or late.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::Entry;
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Attempt, Idempotency, idempotent};
use sqlx::Acquire as _;

use crate::bank::{Bank, LEASE, Paid, Service, is_unknown, lapse, store};
use crate::servers::postgres::PostgresServer;
use crate::servers::wire::Wire;
use crate::support::Answer;

/// The reply to each message of the handler's session, the one to its COMMIT included.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_is_found() {
    let postgres = PostgresServer::start();
    let wire = Wire::to(postgres.socket_folder()).await;
    let bank = Bank::with_connections(&wire.url(), 1).await;
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let service = Service::with(bank, settings.lease(LEASE), Router::new()).await;
    let mut found = 0;
    for reply in 1..12 {
        let key = &reply.to_string();
        // A connection of the pool, so that the replies are those of the handler.
        drop(service.bank.pool.acquire().await.expect("connected"));
        wire.lose_reply(reply);
        let first = service.server.post("/pay", key, key).await;
        let was_lost = wire.has_lost();
        wire.lose_reply(0);
        let results = service.bank.results();
        let is_committed = first.status == StatusCode::CREATED;
        let entry = service.entry(key).await;
        if is_committed {
            assert!(
                matches!(entry, Some(Entry::Recorded { .. })),
                "{reply}: {entry:?}"
            );
            found += u32::from(was_lost);
        } else {
            assert!(was_lost, "{reply}: {first:?}, {results:?}");
        }
        let retry = service.server.post("/pay", key, key).await;
        assert_eq!(
            retry.status,
            StatusCode::CREATED,
            "{reply}: {first:?}, {results:?}"
        );
        assert_eq!(retry.is_replay(), is_committed, "{reply}: {first:?}");
    }
    assert!(found > 0, "no reply to a commit was lost");
    assert_eq!(service.bank.payments().await.len(), 11);
}

/// The server commits, and then neither the handler nor the store can learn it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_looked_for_is_never_released() {
    let postgres = PostgresServer::start();
    let wire = Wire::to(postgres.socket_folder()).await;
    let faults = FaultStore::new(store(&postgres.url()).await);
    let settings = Idempotency::builder().store(faults.clone());
    let settings = settings.store_timeout(Duration::from_secs(2));
    let bank = Bank::with_connections(&wire.url(), 1).await;
    let service = Service::with(bank, settings.lease(LEASE), Router::new()).await;
    let mut unknown = 0;
    for reply in 1..12 {
        let key = &reply.to_string();
        drop(service.bank.pool.acquire().await.expect("connected"));
        faults.script(Operation::CommitState, vec![Fault::ErrBefore; 1_000]);
        wire.lose_reply(reply);
        let first = service.server.post("/pay", key, key).await;
        wire.lose_reply(0);
        faults.heal();
        let is_unknown = service
            .bank
            .take_results()
            .last()
            .is_some_and(|results| results == "OutcomeUnknown");
        if is_unknown {
            assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(first.code(), "idempotency_outcome_unknown");
            unknown += 1;
            let entry = service.entry(key).await;
            assert!(entry.is_some(), "the key was released");
        }
        lapse(&postgres);
        let retry = service.server.post("/pay", key, key).await;
        assert_eq!(retry.status, StatusCode::CREATED, "{reply}: {first:?}");
        assert!(service.server.post("/pay", key, key).await.is_replay());
    }
    assert!(unknown > 0, "no reply to a commit was lost");
    assert_eq!(service.bank.payments().await.len(), 11);
}

/// Waits for the test, and then commits a response that is not recorded.
#[idempotent(scope = token)]
async fn refused(State(bank): State<Bank>, attempt: Attempt) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, "refused").await?;
    bank.runs.pass().await;
    let response = attempt.commit(tx, (StatusCode::SERVICE_UNAVAILABLE, "refused"));
    Ok(bank.note(response.await)?)
}

/// Waits for the test, and then commits a savepoint.
#[idempotent(scope = token)]
async fn savepoint(State(bank): State<Bank>, attempt: Attempt) -> Paid {
    let mut tx = bank.begin().await?;
    let mut savepoint = tx.begin().await?;
    Bank::pay(&mut savepoint, "savepoint").await?;
    bank.runs.pass().await;
    let response = attempt.commit(savepoint, (StatusCode::CREATED, "paid"));
    let response = bank.note(response.await)?;
    tx.commit().await?;
    Ok(response)
}

/// The service and the response of an endpoint whose connection falls silent at the first statement of its commit.
async fn silent(postgres: &PostgresServer, path: &'static str) -> (Service, Answer) {
    let wire = Wire::to(postgres.socket_folder()).await;
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let settings = settings.store_timeout(Duration::from_secs(1)).lease(LEASE);
    let settings = settings.max_run(Duration::from_secs(20));
    let routes = Router::new()
        .route("/refused", post(refused))
        .route("/savepoint", post(savepoint));
    let bank = Bank::with_connections(&wire.url(), 1).await;
    let service = Service::with(bank, settings, routes).await;
    let (server, runs) = (service.server, &service.bank.runs);
    let response = tokio::spawn(async move { server.post(path, "k", path).await });
    runs.until_started(1).await;
    wire.hold_reply(1);
    runs.open(1);
    let response = response.await.expect("no panic");
    assert!(wire.has_lost(), "{response:?}");
    (service, response)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_does_not_wait_for_a_silent_connection() {
    let postgres = PostgresServer::start();
    let (service, response) = silent(&postgres, "/refused").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(service.bank.take_results(), ["Ok"]);
    let released = service.entry("k").await;
    assert!(released.is_none(), "{released:?}");
}

/// The outer transaction could still have been committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_on_a_silent_connection_is_unknown() {
    let postgres = PostgresServer::start();
    let (service, response) = silent(&postgres, "/savepoint").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(service.bank.take_results(), ["OutcomeUnknown"]);
    let unknown = service.entry("k").await;
    assert!(is_unknown(unknown.as_ref()), "{unknown:?}");
}

/// How a commit ends when its connection falls silent at one of its replies.
async fn held_at(postgres: &PostgresServer, reply: usize, key: &'static str) -> Service {
    let wire = Wire::to(postgres.socket_folder()).await;
    let bank = Bank::with_connections(&wire.url(), 1).await;
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let settings = settings.store_timeout(Duration::from_secs(1)).lease(LEASE);
    let service = Service::with(bank, settings, Router::new()).await;
    let (server, runs) = (service.server, &service.bank.runs);
    // Afterwards, the statements of a commit are prepared on the connection, and each has one reply.
    runs.open(1);
    let prepared = format!("{key}-prepares");
    let first = server.post("/gated", &prepared, &prepared).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let gated = tokio::spawn(async move { server.post("/gated", key, key).await });
    runs.until_started(2).await;
    service.bank.take_results();
    wire.hold_reply(reply);
    runs.open(1);
    let response = gated.await.expect("no panic");
    assert!(wire.has_lost(), "{response:?}");
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_held_back_is_found() {
    let postgres = PostgresServer::start();
    let service = held_at(&postgres, 2, "k").await;
    assert_eq!(service.bank.take_results(), ["Ok"]);
    let entry = service.entry("k").await;
    assert!(matches!(entry, Some(Entry::Recorded { .. })), "{entry:?}");
    let replay = service.server.post("/gated", "k", "k").await;
    assert!(replay.is_replay() && replay.text() == "k 1", "{replay:?}");
}

/// The server waits for the `COMMIT`, which may still be on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_reply_is_held_back_is_unknown() {
    let postgres = PostgresServer::start();
    let service = held_at(&postgres, 1, "k").await;
    assert_eq!(service.bank.take_results(), ["OutcomeUnknown"]);
    let entry = service.entry("k").await;
    assert!(matches!(entry, Some(Entry::Unknown { .. })), "{entry:?}");
    assert_eq!(postgres.command("SELECT count(*) FROM payments"), "1");
}

/// The look-up writes to the log and waits for the disk, which would make a slow server slower.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_commit_that_waits_for_no_standby_is_not_looked_for() {
    let postgres = PostgresServer::start();
    let faults = FaultStore::new(store(&postgres.url()).await);
    let settings = Idempotency::builder().store(faults.clone()).lease(LEASE);
    let settings = settings.store_timeout(Duration::from_secs(6));
    let bank = Bank::open(&postgres.url()).await;
    let service = Service::with(bank, settings, Router::new()).await;
    // Longer than a quarter of the timeout.
    postgres.command(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(1.6); RETURN NULL; END'",
    );
    postgres.command(
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON payments DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let first = service.server.post("/pay", "k", "x").await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert_eq!(faults.calls(Operation::CommitState), 0, "looked for");
}
