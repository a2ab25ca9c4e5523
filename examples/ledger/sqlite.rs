//! The ledger in a SQLite file.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::{SqliteStore, StoreError};
use axum_idem::{Attempt, idempotent};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::Failure;
use crate::transfers::{Booked, LEASE, LedgerError, Transfer, idempotency};

#[idempotent(scope = token, transactional)]
async fn transfer(
    State(pool): State<SqlitePool>,
    attempt: Attempt,
    Json(transfer): Json<Transfer>,
) -> Result<Response, LedgerError> {
    transfer.check()?;
    // Takes the write lock, so that no other transaction writes between the reads and the writes.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let balance: Option<i64> =
        sqlx::query_scalar("SELECT cents FROM ledger_accounts WHERE id = ?1")
            .bind(transfer.from)
            .fetch_optional(&mut *tx)
            .await?;
    if balance.is_none_or(|cents| cents < transfer.cents) {
        return Err(LedgerError::NoFunds);
    }
    for (account, cents) in transfer.entries() {
        let updated = sqlx::query("UPDATE ledger_accounts SET cents = cents + ?2 WHERE id = ?1")
            .bind(account)
            .bind(cents)
            .execute(&mut *tx)
            .await?;
        if updated.rows_affected() == 0 {
            // Rolls back: the transaction is dropped.
            return Err(LedgerError::NoAccount);
        }
    }
    let id = sqlx::query_scalar(
        "INSERT INTO ledger_transfers (debit, credit, cents) VALUES (?1, ?2, ?3) RETURNING id",
    )
    .bind(transfer.from)
    .bind(transfer.to)
    .bind(transfer.cents)
    .fetch_one(&mut *tx)
    .await?;
    // Records the response and commits, in place of `tx.commit()`.
    Ok(attempt
        .commit(tx, (StatusCode::CREATED, Json(Booked { id })))
        .await?)
}

async fn connect(path: &str) -> Result<SqlitePool, Failure> {
    let options = SqliteConnectOptions::new().filename(path);
    let pool = SqlitePool::connect_with(options.create_if_missing(true));
    Ok(pool.await?)
}

pub(crate) async fn router(path: &str) -> Result<Router, Failure> {
    let pool = connect(path).await?;
    // A claim waits for the write lock for a part of the lease at most.
    let builder = SqliteStore::builder().pool(pool.clone());
    let builder = builder.busy_timeout(LEASE / 4);
    let store = loop {
        match builder.clone().open().await {
            // The other process holds the lock.
            Err(StoreError::Busy | StoreError::TimedOut) => {}
            opened => break opened?,
        }
    };
    Ok(Router::new()
        .route("/transfers", post(transfer))
        .layer(idempotency(store))
        .with_state(pool))
}

/// Creates the tables anew.
pub(crate) async fn create(path: &str) -> Result<(), Failure> {
    let pool = connect(path).await?;
    // The store turns on the log in which readers do not wait for a writer.
    SqliteStore::builder().pool(pool.clone()).open().await?;
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(
        "DROP TABLE IF EXISTS ledger_accounts;
        DROP TABLE IF EXISTS ledger_transfers;
        CREATE TABLE ledger_accounts (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL);
        CREATE TABLE ledger_transfers (id INTEGER PRIMARY KEY, debit INTEGER NOT NULL,
            credit INTEGER NOT NULL, cents INTEGER NOT NULL);
        INSERT INTO ledger_accounts (id, cents) VALUES (1, 1000000000), (2, 1000000000),
            (3, 1000000000), (4, 1000000000), (5, 1000000000), (6, 1000000000), (7, 1000000000),
            (8, 1000000000)",
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

pub(crate) async fn books(path: &str) -> Result<[i64; 2], Failure> {
    let pool = connect(path).await?;
    let transfers = sqlx::query_scalar("SELECT count(*) FROM ledger_transfers");
    let cents = sqlx::query_scalar("SELECT sum(cents) FROM ledger_accounts");
    Ok([
        transfers.fetch_one(&pool).await?,
        cents.fetch_one(&pool).await?,
    ])
}
