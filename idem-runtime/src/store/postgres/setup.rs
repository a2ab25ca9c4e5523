//! Looks whether a server is fit, and creates what is missing.

use sqlx::{AssertSqlSafe, PgExecutor, PgPool, Row};

use super::claiming::TAKES;
use super::failure::store_error;
use super::table::Table;
use crate::store::StoreError;

/// # Errors
///
/// When the server takes no writes: a replica answers from the past, so that a claim on it would
/// not see one on the primary.
pub(super) async fn check(pool: &PgPool) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT pg_is_in_recovery() AS is_replica,
            current_setting('transaction_read_only')::boolean AS is_read_only",
    )
    .fetch_one(pool)
    .await
    .map_err(store_error)?;
    let says = |column| row.try_get::<bool, _>(column).map_err(store_error);
    let reason = if says("is_replica")? {
        "the postgres server is a replica; connect to the primary"
    } else if says("is_read_only")? {
        "the postgres session is read-only; unset `default_transaction_read_only`"
    } else {
        return Ok(());
    };
    Err(StoreError::Unfit(reason.into()))
}

/// Creates the table and its function, safe for any number of processes at once. Where both stand,
/// nothing is done that asks for the right to create one.
pub(super) async fn migrate(pool: &PgPool, table: &Table) -> Result<(), StoreError> {
    if stands(pool, table).await? {
        return Ok(());
    }
    let mut transaction = pool.begin().await.map_err(store_error)?;
    // `IF NOT EXISTS` alone loses races of two who both see nothing.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('axum-idem ' || $1, 0))")
        .bind(table.quoted())
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
    // Another role may have been first, whose function is not to be replaced.
    if stands(&mut *transaction, table).await? {
        return Ok(());
    }
    for statement in table.definition() {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
    }
    transaction.commit().await.map_err(store_error)
}

async fn stands(executor: impl PgExecutor<'_>, table: &Table) -> Result<bool, StoreError> {
    let stands = "SELECT to_regclass($1) IS NOT NULL AND to_regprocedure($2) IS NOT NULL";
    sqlx::query_scalar(stands)
        .bind(table.quoted())
        .bind(format!("{}{TAKES}", table.claim()))
        .fetch_one(executor)
        .await
        .map_err(store_error)
}
