//! The handlers on a SQLite file. `IDEM_BENCH_FOLDER` names a folder on the disk to measure.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::SqliteStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};

use crate::spent::Spent;
use crate::{Measured, RESPONSE};

type Paid = Result<Response, CommitError>;
type Responded = Result<(StatusCode, &'static str), CommitError>;

async fn payment(pool: &SqlitePool) -> Result<Transaction<'static, Sqlite>, CommitError> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let insert = "INSERT INTO payments (amount) VALUES (?1)";
    sqlx::query(insert).bind(700_i64).execute(&mut *tx).await?;
    Ok(tx)
}

async fn bare(State(pool): State<SqlitePool>, _: String) -> Responded {
    payment(&pool).await?.commit().await?;
    Ok((StatusCode::CREATED, RESPONSE))
}

#[idempotent(scope = global)]
async fn afterwards(State(pool): State<SqlitePool>, _: String) -> Responded {
    payment(&pool).await?.commit().await?;
    Ok((StatusCode::CREATED, RESPONSE))
}

#[idempotent(scope = global)]
async fn inside(State(pool): State<SqlitePool>, attempt: Attempt, _: String) -> Paid {
    let tx = payment(&pool).await?;
    attempt.commit(tx, (StatusCode::CREATED, RESPONSE)).await
}

#[idempotent(scope = global, transactional)]
async fn transactional(State(pool): State<SqlitePool>, attempt: Attempt, _: String) -> Paid {
    let tx = payment(&pool).await?;
    attempt.commit(tx, (StatusCode::CREATED, RESPONSE)).await
}

/// With one connection for the handlers, which would otherwise wait for each other's write lock by polling.
pub(crate) async fn measure(callers: usize) -> Measured {
    let folder =
        std::env::var_os("IDEM_BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("bank.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10));
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let pool = pool.connect_with(options).await.expect("the file opens");
    let create = "CREATE TABLE payments (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL)";
    let created = sqlx::query(create).execute(&pool).await;
    created.expect("created");
    let store = SqliteStore::builder().pool(pool.clone()).no_sweeper();
    let store = store.open().await.expect("the file opens");
    let router = Router::new()
        .route("/afterwards", post(afterwards))
        .route("/inside", post(inside))
        .route("/transactional", post(transactional))
        .layer(Idempotency::builder().store(store).build())
        .route("/bare", post(bare))
        .with_state(pool);
    Measured::new(&router, callers, Spent::default).await
}
