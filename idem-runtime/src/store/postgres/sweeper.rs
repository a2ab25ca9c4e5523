//! Removes expired rows. Hygiene only: to every transition they are gone already.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::Inner;
use super::failure::store_error;
use crate::store::StoreError;

/// How many rows one statement removes, so that none holds locks for long.
pub(super) const BATCH: i64 = 1000;

impl Inner {
    /// Removes up to `batch` expired rows, and says how many there were.
    pub(super) async fn sweep_batch(&self, batch: i64) -> Result<u64, StoreError> {
        let mut connection = self.connections.acquire().await.map_err(store_error)?;
        let done = sqlx::query(AssertSqlSafe(self.statements.sweep.clone()))
            .bind(batch)
            .execute(&mut *connection)
            .await
            .map_err(store_error)?;
        connection.give_back();
        Ok(done.rows_affected())
    }

    pub(super) async fn sweep(&self) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self.sweep_batch(BATCH).await?;
            removed += batch;
            if batch < BATCH.unsigned_abs() {
                return Ok(removed);
            }
        }
    }
}

/// Sweeps every now and then, for as long as the store is there.
pub(super) fn start(inner: &Arc<Inner>, pause: Duration) {
    let store = Arc::downgrade(inner);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(pause).await;
            if sweep_once(&store).await.is_none() {
                return;
            }
        }
    });
}

async fn sweep_once(store: &Weak<Inner>) -> Option<()> {
    match store.upgrade()?.sweep().await {
        Ok(removed) => tracing::debug!(target: crate::TARGET, removed, "expired rows were removed"),
        Err(error) => tracing::warn!(
            target: crate::TARGET,
            error = &error as &dyn std::error::Error,
            "expired rows could not be removed; it is tried again later"
        ),
    }
    Some(())
}
