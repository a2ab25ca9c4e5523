//! Commits that are refused, and errors that a handler can act on.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{
    Attempt, CommitError, DoNotRecord, Idempotency, OnStoreError, OutcomeUnknown, idempotent,
};
use sqlx::Connection as _;

use crate::bank::{Bank, BankError, LEASE, Paid, Service, routes, store};
use crate::servers::eventually_async;
use crate::servers::postgres::PostgresServer;
use crate::support::Server;

/// Records after the test has opened the gate, and then waits once more before it returns.
#[idempotent(scope = token, transactional)]
async fn recorded(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    bank.runs.pass().await;
    let recorded = attempt.record_in(&mut *tx, (StatusCode::CREATED, body));
    let recorded = bank.note(recorded.await);
    bank.runs.pass().await;
    let response = recorded?;
    tx.commit().await?;
    Ok(response)
}

/// Commits on a connection that it keeps. `?` converts errors of sqlx.
#[idempotent(scope = token, transactional)]
async fn kept(
    State(bank): State<Bank>,
    attempt: Attempt,
    body: String,
) -> Result<Response, CommitError> {
    let mut connection = bank.pool.acquire().await?;
    let mut tx = connection.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, body)).await;
    let response = bank.note(response);
    bank.runs.pass().await;
    Bank::pay(&mut connection, "after the commit").await?;
    response
}

/// Records without a transaction, or in one that sqlx does not know.
#[idempotent(scope = token, transactional)]
async fn by_hand(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut connection = bank.pool.acquire().await?;
    if body == "begun" {
        sqlx::query("BEGIN").execute(&mut *connection).await?;
    }
    Bank::pay(&mut connection, &body).await?;
    let response = attempt.record_in(&mut *connection, (StatusCode::CREATED, body));
    let response = bank.note(response.await)?;
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok(response)
}

/// Prepares a second response after its commit.
#[idempotent(scope = token, transactional)]
async fn prepared_again(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, body)).await;
    let response = bank.note(response)?;
    let again = bank.note(attempt.prepare(StatusCode::OK).await)?;
    drop(again);
    Ok(response)
}

/// Spawns a task that commits after the test has opened the gate.
#[idempotent(scope = token, transactional)]
async fn spawned(State(bank): State<Bank>, attempt: Attempt, body: String) -> StatusCode {
    tokio::spawn(async move {
        let mut tx = bank.begin().await?;
        Bank::pay(&mut tx, &body).await?;
        bank.runs.pass().await;
        let response = attempt.commit(tx, (StatusCode::CREATED, body));
        bank.note(response.await)?;
        Ok::<_, BankError>(())
    });
    StatusCode::ACCEPTED
}

/// Commits, and returns a response with a marker.
#[idempotent(scope = token, transactional)]
async fn marked(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, body.clone()));
    let response = bank.note(response.await)?;
    Ok(if body == "unknown" {
        (OutcomeUnknown, response).into_response()
    } else {
        (DoNotRecord, response).into_response()
    })
}

/// Begins a transaction whose first run fails at the commit because of a rival.
#[idempotent(scope = token, transactional)]
async fn retried(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    loop {
        let run = format!("{body} {}", bank.runs.count());
        let mut tx = bank.begin().await?;
        Bank::pay(&mut tx, &run).await?;
        let count = "SELECT count(*) FROM payments";
        let _: i64 = sqlx::query_scalar(count).fetch_one(&mut *tx).await?;
        if bank.is_first("rival") {
            let mut rival = bank.begin().await?;
            let insert = "INSERT INTO payments (run) SELECT 'rival ' || count(*) FROM payments";
            sqlx::query(insert).execute(&mut *rival).await?;
            rival.commit().await?;
        }
        let committed = attempt.commit(tx, (StatusCode::CREATED, run)).await;
        match bank.note(committed) {
            Err(CommitError::Database(error)) if is_serialization_failure(&error) => {}
            done => return Ok(done?),
        }
    }
}

fn is_serialization_failure(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some("40001"))
}

fn more() -> Router<Bank> {
    Router::new()
        .route("/recorded", post(recorded))
        .route("/kept", post(kept))
        .route("/by_hand", post(by_hand))
        .route("/prepared_again", post(prepared_again))
        .route("/spawned", post(spawned))
        .route("/retried", post(retried))
}

async fn on(postgres: &PostgresServer) -> Service {
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let bank = Bank::open(&postgres.url()).await;
    Service::with(bank, settings.lease(LEASE), more()).await
}

/// Without a claim, the transaction would be committed without a record.
#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_endpoint_never_fails_open() {
    let postgres = PostgresServer::start();
    let faults = FaultStore::new(store(&postgres.url()).await);
    let settings = Idempotency::builder().store(faults.clone());
    let settings = settings.on_store_error(OnStoreError::FailOpen);
    let bank = Bank::open(&postgres.url()).await;
    let service = Service::with(bank, settings, Router::new()).await;
    faults.script(Operation::Claim, vec![Fault::ErrBefore; 100]);
    let refused = service.server.post("/pay", "k", "x").await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    assert_eq!(service.bank.runs.started(), 0);
    let unprotected = service.server.post("/plain", "k", "x").await;
    assert_eq!(unprotected.status, StatusCode::CREATED);
    assert_eq!(service.bank.payments().await, ["x 1"]);
}

/// The server may allow no further connection until the handler has returned its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_not_looked_for_while_the_handler_runs() {
    let postgres = PostgresServer::start();
    let faults = FaultStore::new(store(&postgres.url()).await);
    let settings = Idempotency::builder().store(faults.clone()).lease(LEASE);
    let bank = Bank::open(&postgres.url()).await;
    let service = Service::with(bank, settings, more()).await;
    let server = service.server;
    let first = tokio::spawn(async move { server.post("/recorded", "k", "x").await });
    service.bank.runs.until_started(1).await;
    postgres.command("UPDATE idem_records SET fence = fence + 1, attempt = 2");
    service.bank.runs.open(1);
    service.bank.runs.until_started(2).await;
    assert_eq!(service.bank.results(), ["Overtaken"]);
    assert_eq!(faults.calls(Operation::CommitState), 0, "looked too early");
    service.bank.runs.open(1);
    let first = first.await.expect("no panic");
    assert_eq!(first.status, StatusCode::CONFLICT, "{first:?}");
    assert_eq!(faults.calls(Operation::CommitState), 1);
    assert!(service.bank.payments().await.is_empty());
}

/// With a table of the same name and without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_in_another_database_is_refused_and_the_key_is_free() {
    let postgres = PostgresServer::start();
    postgres.command("CREATE DATABASE other");
    let other = postgres.url().replace("///postgres?", "///other?");
    let bank = Bank::open(&other).await;
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let service = Service::with(bank, settings.lease(LEASE), more()).await;
    for count in [1, 2] {
        service.bank.runs.open(2);
        let refused = service.server.post("/recorded", "k", "x").await;
        assert_eq!(refused.code(), "idempotency_not_transactional");
        assert_eq!(service.bank.results(), vec!["OtherDatabase"; count]);
        assert!(service.entry("k").await.is_none(), "the key is released");
        // From now on, the other database has a table of the same name.
        drop(store(&other).await);
    }
    assert!(service.bank.payments().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_leaves_no_transaction_on_a_connection_that_the_handler_keeps() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    let server = service.server;
    for (earlier, key) in ["a", "b"].into_iter().enumerate() {
        let first = tokio::spawn(async move { server.post("/kept", key, key).await });
        service.bank.runs.until_started(earlier + 1).await;
        eventually_async("the connection is idle", async || {
            let open =
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
            (postgres.command(open) == "0").then_some(())
        })
        .await;
        service.bank.runs.open(1);
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
        sqlx::query("DELETE FROM payments WHERE run = 'after the commit'")
            .execute(&service.bank.pool)
            .await
            .expect("deleted");
    }
    assert_eq!(service.bank.payments().await, ["a", "b"]);
    let log = postgres.log();
    assert!(!log.contains("no transaction in progress"), "{log}");
}

/// A record without a transaction would be committed alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_outside_of_a_transaction_is_refused() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    let refused = service.server.post("/by_hand", "a", "not begun").await;
    assert_eq!(refused.code(), "idempotency_not_transactional");
    let recorded = service.server.post("/by_hand", "b", "begun").await;
    assert_eq!(recorded.status, StatusCode::CREATED);
    assert_eq!(service.bank.results(), ["NoTransaction", "Ok"]);
    let replay = service.server.post("/by_hand", "b", "begun").await;
    assert!(replay.is_replay());
    let text = CommitError::NoTransaction.to_string();
    assert!(text.contains("pass `&mut *tx`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_not_prepared_after_a_commit() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    let refused = service.server.post("/prepared_again", "k", "x").await;
    assert_eq!(service.bank.results(), ["Ok", "AlreadyRecorded"]);
    assert_eq!(refused.code(), "idempotency_commit_failed");
    let replay = service.server.post("/prepared_again", "k", "x").await;
    assert!(replay.is_replay() && replay.status == StatusCode::CREATED);
    let text = CommitError::AlreadyRecorded.to_string();
    assert!(text.contains("commit once"), "{text}");
}

/// Otherwise the transaction and the response of the handler could both be recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_cannot_commit_after_its_handler_has_returned() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    let first = service.server.post("/spawned", "k", "x").await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    service.bank.runs.open(1);
    eventually_async("the commit is refused", async || {
        (service.bank.results() == ["AlreadyRecorded"]).then_some(())
    })
    .await;
    assert!(service.bank.payments().await.is_empty());
    let replay = service.server.post("/spawned", "k", "x").await;
    assert!(replay.is_replay() && replay.status == StatusCode::ACCEPTED);
}

/// The commit is the outcome, so a marker that contradicts it goes no further.
#[tokio::test(flavor = "multi_thread")]
async fn markers_are_removed_from_the_response_of_a_committed_attempt() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let idem = Idempotency::builder().store(store(&postgres.url()).await);
    let idem = idem.lease(LEASE).build();
    // The layer is between the handler and the `Idempotency` layer.
    let router = routes()
        .route("/marked", post(marked))
        .layer(map_response(async |mut response: Response| {
            let extensions = response.extensions();
            let is_marked = extensions.get::<DoNotRecord>().is_some()
                || extensions.get::<OutcomeUnknown>().is_some();
            let value = HeaderValue::from_static(if is_marked { "yes" } else { "no" });
            response.headers_mut().insert("x-marked", value);
            response
        }))
        .layer(idem);
    let server = Server::start(router.with_state(bank.clone())).await;
    for body in ["unknown", "not recorded"] {
        let key = &crate::bank::key(body);
        let first = server.post("/marked", key, body).await;
        assert_eq!(first.status, StatusCode::CREATED);
        assert_eq!(first.headers["x-marked"], "no", "{body}");
        assert!(server.post("/marked", key, body).await.is_replay());
    }
    assert_eq!(bank.payments().await, ["unknown", "not recorded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_to_serialize_can_be_run_again() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await.isolated("SERIALIZABLE");
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let service = Service::with(bank, settings.lease(LEASE), more()).await;
    let first = service.server.post("/retried", "k", "x").await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "x 2"));
    assert_eq!(service.bank.results(), ["Database", "Ok"]);
    let again = service.server.post("/retried", "k", "x").await;
    assert!(again.is_replay() && again.text() == "x 2", "{again:?}");
    assert_eq!(service.bank.payments().await, ["rival 0", "x 2"]);
}

/// A trigger that runs at the commit misses its own table. That is not the table of the store.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_deferred_trigger_is_an_error_of_the_database() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    postgres.command(
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN INSERT INTO audits VALUES (NEW.id); RETURN NULL; END'",
    );
    postgres.command(
        "CREATE CONSTRAINT TRIGGER audit AFTER INSERT ON payments DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION audit()",
    );
    let failed = service.server.post("/pay", "k", "x").await;
    assert_eq!(service.bank.results(), ["Database"]);
    assert_eq!(failed.code(), "idempotency_commit_failed");
    assert!(service.entry("k").await.is_none(), "the key is free");
    postgres.command("CREATE TABLE audits (id int)");
    let next = service.server.post("/pay", "k", "x").await;
    assert_eq!(next.status, StatusCode::CREATED);
    assert_eq!(service.bank.payments().await, ["x 2"]);
}

/// The server logs the text of a statement that fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_server_contains_no_response() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    let server = service.server;
    for (path, waits) in [("/gated", 1), ("/recorded", 2)] {
        let started = service.bank.runs.started();
        let refused = tokio::spawn(async move { server.post(path, "k", "SECRET").await });
        service.bank.runs.until_started(started + 1).await;
        postgres.command("UPDATE idem_records SET fence = fence + 1, attempt = 2");
        service.bank.runs.open(waits);
        refused.await.expect("no panic");
        assert_eq!(service.bank.take_results(), ["Overtaken"], "{path}");
        postgres.command("TRUNCATE idem_records");
    }
    let log = postgres.log();
    assert!(log.contains("another attempt has taken over"), "{log}");
    assert!(log.contains("STATEMENT:"), "{log}");
    // As text, and as the digits of a `bytea`.
    for secret in ["SECRET", "534543524554"] {
        assert!(!log.contains(secret), "{log}");
    }
}
