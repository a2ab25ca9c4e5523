//! The ways in which a commit and its handler can end.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::post;
use axum_idem::store::{Bind, Entry, SqliteStore, Store};
use axum_idem::{Attempt, idempotent};
use sqlx::{Acquire as _, AssertSqlSafe, Connection as _};

use crate::bank::{Bank, BankError, Paid, Service, after};
use crate::shared::ends as shared;
use crate::support;

/// Records, and then commits or rolls back.
#[idempotent(scope = token)]
async fn recorded(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    if body.starts_with("savepoint") {
        let mut undone = tx.begin().await?;
        Bank::pay(&mut undone, "undone").await?;
        let record = attempt.record_in(&mut *undone, (StatusCode::ACCEPTED, "undone"));
        bank.note(record.await)?;
        undone.rollback().await?;
        let mut savepoint = tx.begin().await?;
        Bank::pay(&mut savepoint, &body).await?;
        let response = attempt.commit(savepoint, (StatusCode::CREATED, body.clone()));
        let response = bank.note(response.await)?;
        if body.ends_with("undone") {
            tx.rollback().await?;
        } else {
            tx.commit().await?;
        }
        return Ok(response);
    }
    Bank::pay(&mut tx, &body).await?;
    let response = attempt.record_in(&mut *tx, (StatusCode::CREATED, body.clone()));
    let response = bank.note(response.await)?;
    if body == "undone" {
        tx.rollback().await?;
    } else {
        tx.commit().await?;
    }
    Ok(response)
}

/// As a driver that the library does not know.
#[idempotent(scope = token, transactional)]
async fn prepared(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let prepared = attempt.prepare((StatusCode::CREATED, body.clone())).await?;
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    // The second time, the claim has a record.
    for _ in 0..body.len() {
        let mut statement = sqlx::query(AssertSqlSafe(prepared.sql().to_owned()));
        for bind in prepared.binds() {
            statement = match bind {
                Bind::Bytes(bytes) => statement.bind(bytes.to_vec()),
                Bind::Integer(number) => statement.bind(*number),
                _ => unreachable!("a bind of SQLite"),
            };
        }
        statement.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(prepared.into_response())
}

/// Uses its connection after the commit.
#[idempotent(scope = token, transactional)]
async fn kept(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut connection = bank.pool.acquire().await?;
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    Bank::pay(&mut tx, &body).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, body)).await;
    let response = bank.note(response)?;
    Bank::pay(&mut connection, "after the commit").await?;
    let tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    tx.commit().await?;
    Ok(response)
}

/// Drops the commit after as many polls as the body says.
#[idempotent(scope = token, transactional)]
async fn dropped(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let commit = attempt.commit(tx, (StatusCode::CREATED, body.clone()));
    if !bank.is_first(&body) {
        return Ok(commit.await?);
    }
    match after(body.parse().expect("a number"), commit).await {
        Some(committed) => Ok(bank.note(committed)?),
        None => Err(BankError::Database(sqlx::Error::WorkerCrashed)),
    }
}

/// Responds with a body that arrives after the commit.
#[idempotent(scope = token, transactional)]
async fn slow_body(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let (finish, finished) = tokio::sync::oneshot::channel();
    let frame = async { finished.await.map_err(std::io::Error::other) };
    let stream = Body::from_stream(futures_util::stream::once(frame));
    let length = (body == "known").then_some([("content-length", "4")]);
    let begun = Instant::now();
    let response = attempt.commit(tx, (StatusCode::CREATED, length, stream));
    let response = bank.note(response.await)?;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "the body was read"
    );
    finish.send("paid").expect("the body is read");
    Ok(response)
}

async fn start() -> Service {
    let routes = shared::routes()
        .route("/slow_body", post(slow_body))
        .route("/recorded", post(recorded))
        .route("/prepared", post(prepared))
        .route("/kept", post(kept))
        .route("/dropped", post(dropped));
    Service::start(routes).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_response_is_replayed_whatever_the_handler_returns() {
    shared::a_committed_response_is_replayed(start().await.shared).await;
}

/// Another store of the file sees the record too.
#[tokio::test(flavor = "multi_thread")]
async fn a_committed_record_has_the_ttl_of_its_endpoint() {
    let service = start().await;
    service.server.post("/and_then", "k", "succeed").await;
    let other = SqliteStore::open(&service.path).await.expect("it opens");
    let entry = other.look_up(service.id("k")).await;
    let Ok(Some(Entry::Recorded { expires_in, .. })) = entry else {
        panic!("{entry:?}");
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let off = day.abs_diff(expires_in);
    assert!(off < Duration::from_secs(60), "{expires_in:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_transaction_is_committed_and_nothing_is_recorded() {
    let service = start().await;
    for path in ["/and_then", "/recorded", "/prepared"] {
        let unkeyed = support::request(Method::POST, path, [], "x");
        let response = service.server.send(unkeyed).await;
        assert_eq!(response.status, StatusCode::CREATED, "{response:?}");
    }
    assert_eq!(service.bank.payments().await, ["x 1", "x", "x"]);
    let rows = sqlx::query_scalar("SELECT count(*) FROM idem_records");
    let rows: i64 = rows.fetch_one(&service.bank.pool).await.expect("read");
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_not_recorded_is_rolled_back_and_releases_the_key() {
    shared::a_response_that_is_not_recorded_is_rolled_back(start().await.shared).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_counts_when_the_handler_commits() {
    let service = start().await;
    for body in ["x", "savepoint"] {
        let first = service.server.post("/recorded", body, body).await;
        assert_eq!((first.status, first.text()), (StatusCode::CREATED, body));
        let again = service.server.post("/recorded", body, body).await;
        assert!(again.is_replay() && again.text() == body, "{again:?}");
    }
    for body in ["undone", "savepoint undone"] {
        let key = body.replace(' ', "-");
        service.server.post("/recorded", &key, body).await;
        let entry = service.entry(&key).await;
        assert!(matches!(entry, Some(Entry::Unknown { .. })), "{entry:?}");
    }
    assert_eq!(service.bank.payments().await, ["x", "savepoint"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_driver_executes_the_prepared_statement() {
    let service = start().await;
    let first = service.server.post("/prepared", "k", "x").await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "x"));
    assert!(service.server.post("/prepared", "k", "x").await.is_replay());
    // A statement that records nothing must fail.
    let twice = service.server.post("/prepared", "t", "xx").await;
    assert!(twice.text().contains("has taken over"), "{twice:?}");
    assert_eq!(service.bank.payments().await, ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_breaks_a_deferred_constraint_releases_the_key() {
    shared::a_broken_constraint_releases_the_key(start().await.shared).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_leaves_no_transaction_on_a_connection_that_the_handler_keeps() {
    let service = start().await;
    let first = service.server.post("/kept", "k", "x").await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert_eq!(service.bank.payments().await, ["x", "after the commit"]);
}

/// While the transaction is open, no other request can write.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_does_not_wait_for_a_slow_body() {
    let service = start().await;
    for body in ["known", "unknown"] {
        let first = service.server.post("/slow_body", body, body).await;
        assert_eq!((first.status, first.text()), (StatusCode::CREATED, "paid"));
        let retry = service.server.post("/slow_body", body, body).await;
        assert_eq!(retry.code(), "idempotency_response_not_kept");
    }
    assert_eq!(service.bank.payments().await, ["known", "unknown"]);
}

/// How far a commit is after so many polls depends on the thread of the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_dropped_half_way_has_one_effect() {
    let mut dropped = 0;
    for polls in (0..8).chain(0..8) {
        let service = start().await;
        let body = polls.to_string();
        service.server.post("/dropped", "k", &body).await;
        dropped += usize::from(service.bank.take_results().is_empty());
        let again = service.server.post("/dropped", "k", &body).await;
        assert_eq!(again.status, StatusCode::CREATED, "{polls}: {again:?}");
        assert_eq!(service.bank.payments().await, [body], "after {polls} polls");
    }
    assert!(dropped > 2, "{dropped} commits were dropped");
}
