//! The disk fails during the `COMMIT` of a handler.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::SqliteStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use idem_power::{Disk, Fault};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tempfile::TempDir;
use test_support::http::{exchange, post as request};

#[derive(Clone)]
struct Bank {
    pool: SqlitePool,
    disk: Arc<Disk>,
    /// The fault of the first commit.
    fault: Arc<Mutex<Option<Fault>>>,
    _folder: Arc<TempDir>,
}

#[idempotent(scope = global, transactional)]
async fn pay(
    State(bank): State<Bank>,
    attempt: Attempt,
    body: String,
) -> Result<Response, CommitError> {
    let mut tx = bank.pool.begin_with("BEGIN IMMEDIATE").await?;
    let insert = sqlx::query("INSERT INTO payments VALUES (?1)");
    insert.bind(body).execute(&mut *tx).await?;
    let fault = bank.fault.lock().expect("no panic").take();
    bank.disk.fail(fault);
    let response = attempt.commit(tx, (StatusCode::CREATED, "paid")).await;
    bank.disk.fail(None);
    response
}

/// A service whose pool has one connection, and whose first commit meets this fault.
async fn service(fault: Fault) -> (Bank, Router) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::new(folder.path());
    let options = SqliteConnectOptions::new().filename(folder.path().join("bank.db"));
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_lazy_with(options.create_if_missing(true));
    let store = SqliteStore::builder().pool(pool.clone()).no_sweeper();
    let store = store.open().await.expect("the file opens");
    let table = sqlx::query("CREATE TABLE payments (body TEXT NOT NULL)");
    table.execute(&pool).await.expect("created");
    let bank = Bank {
        pool,
        disk,
        fault: Arc::new(Mutex::new(Some(fault))),
        _folder: Arc::new(folder),
    };
    let router = Router::new()
        .route("/", post(pay))
        .layer(Idempotency::builder().store(store).build())
        .with_state(bank.clone());
    (bank, router)
}

/// The first request fails with this code, its retry pays, and every later retry is a replay.
async fn check(fault: Fault, code: &str) {
    let (bank, router) = service(fault).await;
    let send = || exchange(router.clone(), request("/", "k", "x"));
    let first = send().await;
    assert_eq!(first.code(), code, "{first:?}");
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    let second = send().await;
    assert_eq!(second.status, StatusCode::CREATED, "{second:?}");
    assert!(!second.is_replay(), "{second:?}");
    assert!(send().await.is_replay());
    let payments = sqlx::query_scalar("SELECT count(*) FROM payments");
    let payments: i64 = payments.fetch_one(&bank.pool).await.expect("read");
    assert_eq!(payments, 1);
}

/// The transaction was written but not synced. If the machine lost power now, the transaction could be there or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_sync_fails_has_an_unknown_outcome_and_one_effect() {
    check(Fault::Sync, "idempotency_outcome_unknown").await;
}

/// SQLite rolls back by itself, and the pool can use the connection again.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_on_a_full_disk_is_rolled_back_and_has_one_effect() {
    check(Fault::Full, "idempotency_commit_failed").await;
}
