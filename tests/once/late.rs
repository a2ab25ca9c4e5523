//! Transactions that commit after a later attempt has been granted the key: the first outcome stays the only one.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use axum_idem::{Attempt, Idempotency, idempotent};
use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::bank::{Bank, LEASE, Paid, Service, expire, key, lapse, store};
use crate::servers::eventually_async;
use crate::servers::postgres::PostgresServer;
use crate::support::{Answer, Server};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// With and without the flag.
const PATHS: [&str; 2] = ["/late", "/late-plain"];

#[idempotent(scope = token, transactional)]
async fn late(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    first_or_later(&bank, &attempt, &body).await
}

#[idempotent(scope = token)]
async fn late_plain(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    first_or_later(&bank, &attempt, &body).await
}

/// The first run pays, and waits for the test before it commits. Later runs do not pay.
async fn first_or_later(bank: &Bank, attempt: &Attempt, body: &str) -> Paid {
    if !bank.is_first(body) {
        bank.runs.count();
        return if body.starts_with("impatient") {
            impatient(bank, attempt).await
        } else if body.contains("unavailable") && attempt.number() > 1 {
            Ok(StatusCode::SERVICE_UNAVAILABLE.into_response())
        } else {
            Ok((StatusCode::UNPROCESSABLE_ENTITY, "a later attempt").into_response())
        };
    }
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, body).await?;
    let response = (StatusCode::CREATED, body.to_owned());
    if body.starts_with("snapshot") {
        // Sees its own claim even when another attempt has taken over.
        bank.runs.pass().await;
        return Ok(bank.note(attempt.commit(tx, response).await)?);
    }
    let response = bank.note(attempt.record_in(&mut *tx, response).await)?;
    bank.runs.pass().await;
    if body.contains("undone") {
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
    Ok(bank.note(response.await)?)
}

async fn start(postgres: &PostgresServer, level: &'static str) -> Service {
    let bank = Bank::open(&postgres.url()).await.isolated(level);
    let more = Router::new()
        .route("/late", post(late))
        .route("/late-plain", post(late_plain));
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let settings = settings.store_timeout(HOUR);
    Service::with(bank, settings.lease(LEASE), more).await
}

fn send(server: Server, path: &'static str, body: &str) -> JoinHandle<Answer> {
    let body = body.to_owned();
    tokio::spawn(async move { server.post(path, &key(&body), &body).await })
}

/// Starts a first run, lets it wait for the test, and ends its lease.
async fn lapsed(
    postgres: &PostgresServer,
    service: &Service,
    path: &'static str,
    body: &str,
) -> JoinHandle<Answer> {
    let started = service.bank.runs.started();
    let first = send(service.server, path, body);
    service.bank.runs.until_started(started + 1).await;
    lapse(postgres);
    first
}

/// Returns when a session of the store waits for a lock, and `request` with it.
async fn waits(postgres: &PostgresServer, request: &JoinHandle<Answer>) {
    eventually_async("the request waits", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND application_name = 'axum-idem'";
        (postgres.command(waiting) == "1" || request.is_finished()).then_some(())
    })
    .await;
    assert!(!request.is_finished(), "the request does not wait");
}

/// The first attempt may commit or roll back. Until then, the second attempt cannot be recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_is_recorded_only_when_no_earlier_transaction_can_commit() {
    let postgres = PostgresServer::start();
    let service = start(&postgres, "READ COMMITTED").await;
    for path in PATHS {
        for kind in ["done", "undone"] {
            let body = &format!("{kind} {path}");
            let first = lapsed(&postgres, &service, path, body).await;
            let second = send(service.server, path, body);
            waits(&postgres, &second).await;
            service.bank.runs.open(1);
            let first = first.await.expect("no panic");
            let second = second.await.expect("no panic");
            let replay = service.server.post(path, &key(body), body).await;
            let status = if kind == "done" {
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
    }
    let payments = service.bank.payments().await;
    assert_eq!(payments, PATHS.map(|path| format!("done {path}")));
}

/// The claim of the first attempt expires although its transaction is open: its process could not renew the lease.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_claimed_only_when_no_earlier_transaction_can_commit() {
    let postgres = PostgresServer::start();
    let mut paid = Vec::new();
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let service = start(&postgres, level).await;
        for path in PATHS {
            for kind in ["done", "undone"] {
                let body = &format!("{kind} {level} {path}");
                let started = service.bank.runs.started();
                let first = lapsed(&postgres, &service, path, body).await;
                expire(&postgres);
                let second = send(service.server, path, body);
                waits(&postgres, &second).await;
                service.bank.runs.open(1);
                first.await.expect("no panic");
                let second = second.await.expect("no panic");
                let status = if kind == "done" {
                    StatusCode::CREATED
                } else {
                    StatusCode::UNPROCESSABLE_ENTITY
                };
                assert_eq!(second.status, status, "{body}: {second:?}");
                assert_eq!(second.is_replay(), kind == "done", "{body}: {second:?}");
                let runs = service.bank.runs.started() - started;
                assert_eq!(runs, if kind == "done" { 1 } else { 2 }, "{body}");
                let replay = service.server.post(path, &key(body), body).await;
                assert!(
                    replay.is_replay() && replay.status == status,
                    "{body}: {replay:?}"
                );
            }
        }
        paid.extend(PATHS.map(|path| format!("done {level} {path}")));
        assert_eq!(service.bank.payments().await, paid);
    }
}

/// A key that is free again counts its attempts from 1, and such an attempt is recorded in its claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_frees_the_key_only_when_no_earlier_transaction_can_commit() {
    let postgres = PostgresServer::start();
    let service = start(&postgres, "READ COMMITTED").await;
    for path in PATHS {
        for kind in ["unavailable done", "unavailable undone"] {
            let body = &format!("{kind} {path}");
            let first = lapsed(&postgres, &service, path, body).await;
            let second = send(service.server, path, body);
            waits(&postgres, &second).await;
            service.bank.runs.open(1);
            first.await.expect("no panic");
            let second = second.await.expect("no panic");
            assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
            let third = service.server.post(path, &key(body), body).await;
            let status = if kind.ends_with("undone") {
                StatusCode::UNPROCESSABLE_ENTITY
            } else {
                StatusCode::CREATED
            };
            assert_eq!(third.status, status, "{body}: {third:?}");
            assert_eq!(third.is_replay(), status == StatusCode::CREATED, "{body}");
        }
    }
    let payments = service.bank.payments().await;
    assert_eq!(
        payments,
        PATHS.map(|path| format!("unavailable done {path}"))
    );
}

/// What happens to a key before the transaction of its first attempt is committed. The snapshot of this
/// transaction still shows its claim.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// A second attempt is recorded.
    Recorded,
    /// A second attempt frees the key, and the next first attempt is recorded.
    Freed,
    /// An operator forgets the key, and the next first attempt is recorded.
    Forgotten,
    /// The claim expires, and the next first attempt is recorded.
    Expired,
}

/// The record of a later attempt has no effect, and is recorded outside of any transaction.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_snapshot_cannot_commit_after_a_later_attempt_was_recorded() {
    use Meanwhile::{Expired, Forgotten, Freed, Recorded};

    let postgres = PostgresServer::start();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for (path, meanwhile) in PATHS
            .into_iter()
            .flat_map(|path| [Recorded, Freed, Forgotten, Expired].map(|it| (path, it)))
        {
            let service = start(&postgres, level).await;
            let kind = if matches!(meanwhile, Freed) {
                "unavailable"
            } else {
                ""
            };
            let body = &format!("snapshot {kind} {meanwhile:?} {level} {path}");
            let first = lapsed(&postgres, &service, path, body).await;
            match meanwhile {
                Recorded => {}
                Freed => {
                    let freed = service.server.post(path, &key(body), body).await;
                    assert_eq!(freed.status, StatusCode::SERVICE_UNAVAILABLE);
                }
                Forgotten => {
                    let forgotten = service.idem.forget(service.id(&key(body))).await;
                    assert!(forgotten.expect("postgres is there"));
                }
                Expired => expire(&postgres),
            }
            let later = service.server.post(path, &key(body), body).await;
            assert_eq!(later.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
            service.bank.runs.open(1);
            let first = first.await.expect("no panic");
            let results = service.bank.take_results();
            // The server may report a serialization failure.
            assert!(
                results == ["Overtaken"] || results == ["Database"],
                "{body}: {results:?}"
            );
            assert_ne!(first.status, StatusCode::CREATED);
            let replay = service.server.post(path, &key(body), body).await;
            assert!(
                replay.is_replay() && replay.body == later.body,
                "{body}: {replay:?}"
            );
            assert!(service.bank.payments().await.is_empty(), "{body}");
        }
    }
}

/// An operator decides about a key whose transaction is still open.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_snapshot_cannot_commit_after_its_key_was_resolved() {
    let postgres = PostgresServer::start();
    let service = start(&postgres, "REPEATABLE READ").await;
    let body = "snapshot";
    let first = lapsed(&postgres, &service, "/late", body).await;
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
    assert_eq!(service.bank.results(), ["Overtaken"]);
    let replay = service.server.post("/late", body, body).await;
    assert!(
        replay.is_replay() && replay.status == StatusCode::GONE,
        "{replay:?}"
    );
    assert!(service.bank.payments().await.is_empty());
}

/// The statement that records never reached `COMMIT`, so nothing is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_while_recording_is_an_error_of_the_database() {
    let postgres = PostgresServer::start();
    let service = start(&postgres, "READ COMMITTED").await;
    let body = "impatient";
    let first = lapsed(&postgres, &service, "/late", body).await;
    service.bank.take_results();
    let second = send(service.server, "/late", body);
    eventually_async("the timeout", async || {
        let results = service.bank.results();
        (!results.is_empty()).then_some(())
    })
    .await;
    assert_eq!(service.bank.take_results(), ["Database"]);
    service.bank.runs.open(1);
    let second = second.await.expect("no panic");
    // Its key is freed when the first transaction has ended, and may have the record of that transaction by then.
    assert!(
        second.is_replay() || second.code() == "idempotency_commit_failed",
        "{second:?}"
    );
    assert_eq!(first.await.expect("no panic").status, StatusCode::CREATED);
    let replay = service.server.post("/late", body, body).await;
    assert!(replay.is_replay(), "{replay:?}");
    assert_eq!(service.bank.payments().await, ["impatient"]);
}
