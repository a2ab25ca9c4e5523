//! The ledger in PostgreSQL.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::PostgresStore;
use axum_idem::{Attempt, idempotent};
use sqlx::PgPool;

use crate::Failure;
use crate::transfers::{Booked, LedgerError, Transfer, idempotency};

#[idempotent(scope = token, transactional)]
async fn transfer(
    State(pool): State<PgPool>,
    attempt: Attempt,
    Json(transfer): Json<Transfer>,
) -> Result<Response, LedgerError> {
    transfer.check()?;
    let mut tx = pool.begin().await?;
    let [first, second] = [
        transfer.from.min(transfer.to),
        transfer.from.max(transfer.to),
    ];
    let balances: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT id, cents FROM ledger_accounts WHERE id IN ($1, $2) ORDER BY id FOR UPDATE",
    )
    .bind(first)
    .bind(second)
    .fetch_all(&mut *tx)
    .await?;
    let balance = balances.iter().find(|(id, _)| *id == transfer.from);
    if balance.is_none_or(|(_, cents)| *cents < transfer.cents) {
        return Err(LedgerError::NoFunds);
    }
    for (account, cents) in transfer.entries() {
        let updated = sqlx::query("UPDATE ledger_accounts SET cents = cents + $2 WHERE id = $1")
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
        "INSERT INTO ledger_transfers (debit, credit, cents) VALUES ($1, $2, $3) RETURNING id",
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

pub(crate) async fn router(url: &str) -> Result<Router, Failure> {
    let pool = PgPool::connect(url).await?;
    let store = PostgresStore::from_pool(pool.clone()).await?;
    Ok(Router::new()
        .route("/transfers", post(transfer))
        .layer(idempotency(store))
        .with_state(pool))
}

/// Creates the tables anew.
pub(crate) async fn create(url: &str) -> Result<(), Failure> {
    let pool = PgPool::connect(url).await?;
    sqlx::raw_sql(
        "DROP TABLE IF EXISTS ledger_accounts, ledger_transfers;
        CREATE TABLE ledger_accounts (id bigint PRIMARY KEY, cents bigint NOT NULL);
        CREATE TABLE ledger_transfers (id bigserial PRIMARY KEY, debit bigint NOT NULL,
            credit bigint NOT NULL, cents bigint NOT NULL);
        INSERT INTO ledger_accounts SELECT id, 1000000000 FROM generate_series(1, 8) AS id",
    )
    .execute(&pool)
    .await?;
    Ok(())
}

pub(crate) async fn books(url: &str) -> Result<[i64; 2], Failure> {
    let pool = PgPool::connect(url).await?;
    let transfers = sqlx::query_scalar("SELECT count(*) FROM ledger_transfers");
    let cents = sqlx::query_scalar("SELECT sum(cents)::bigint FROM ledger_accounts");
    Ok([
        transfers.fetch_one(&pool).await?,
        cents.fetch_one(&pool).await?,
    ])
}
