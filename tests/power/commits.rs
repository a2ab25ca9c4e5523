//! The disk fails during the `COMMIT` of a handler, or loses power at any moment.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::SqliteStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use idem_power::{Disk, Fault, Files, Kept};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
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

/// A service whose pool has one connection, and whose first commit meets this fault. Many commits have a checkpoint.
async fn service(fault: Option<Fault>, synchronous: SqliteSynchronous) -> (Bank, Router) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::new(folder.path());
    let options = SqliteConnectOptions::new().filename(folder.path().join("bank.db"));
    let pool = SqlitePoolOptions::new().max_connections(1);
    let options = options.create_if_missing(true).synchronous(synchronous);
    let pool = pool.connect_lazy_with(options.pragma("wal_autocheckpoint", "12"));
    let store = SqliteStore::builder()
        .pool(pool.clone())
        .synchronous(synchronous);
    let store = store.no_sweeper().open().await.expect("the file opens");
    let table = sqlx::query("CREATE TABLE payments (body TEXT NOT NULL)");
    table.execute(&pool).await.expect("created");
    let bank = Bank {
        pool,
        disk,
        fault: Arc::new(Mutex::new(fault)),
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
    let (bank, router) = service(Some(fault), SqliteSynchronous::Full).await;
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

/// The payments in these files, and the number of recorded responses.
async fn survivors(files: &Files) -> (Vec<String>, i64) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("it is writable");
    }
    let options = SqliteConnectOptions::new().filename(folder.path().join("bank.db"));
    let mut connection = options.connect().await.expect("the file opens");
    let payments = sqlx::query_scalar("SELECT body FROM payments ORDER BY body");
    let payments = payments.fetch_all(&mut connection).await.expect("read");
    let records = sqlx::query_scalar("SELECT count(*) FROM idem_records WHERE record IS NOT NULL");
    let records = records.fetch_one(&mut connection).await.expect("read");
    (payments, records)
}

/// Lets the power go at every moment of 12 payments, or at every `step`. Returns how many disks have lost an acknowledged
/// payment. No disk has a payment without its response.
async fn losses(synchronous: SqliteSynchronous, step: usize) -> usize {
    let (bank, router) = service(None, synchronous).await;
    // From here on, every disk has the table.
    let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
    checkpoint.execute(&bank.pool).await.expect("written");
    let begin = bank.disk.now();
    let mut acknowledged = Vec::new();
    for key in 'a'..='l' {
        let key = key.to_string();
        let paid = exchange(router.clone(), request("/", &key, &key)).await;
        assert_eq!(paid.status, StatusCode::CREATED, "{paid:?}");
        acknowledged.push((key, bank.disk.now()));
    }
    let (mut disks, mut losses) = (0, 0);
    for moment in (begin..=bank.disk.now()).step_by(step) {
        let (writes, sectors) = (fastrand::u64(..), fastrand::u64(..));
        for kept in [
            Kept::Nothing,
            Kept::Everything,
            Kept::SomeWrites(writes),
            Kept::SomeSectors(sectors),
        ] {
            let why = format!("after {moment} events, kept {kept:?}");
            let (payments, records) = survivors(&bank.disk.after_loss(moment, kept)).await;
            assert_eq!(i64::try_from(payments.len()), Ok(records), "{why}");
            let mut earlier = acknowledged.iter().filter(|(_, at)| *at <= moment);
            losses += usize::from(earlier.any(|(key, _)| !payments.contains(key)));
            disks += 1;
        }
    }
    println!("{disks} disks, {losses} of them lost something");
    losses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_power_keeps_a_payment_and_its_response_or_neither() {
    assert_eq!(losses(SqliteSynchronous::Full, 1).await, 0);
}

/// Otherwise the test above could not fail. Payments and their responses are lost together.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_sync_for_each_commit_a_lost_payment_is_noticed() {
    assert!(losses(SqliteSynchronous::Normal, 9).await > 0);
}
