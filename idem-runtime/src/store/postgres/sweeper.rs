//! Removes expired rows, and marks claims that a record row has settled. All transitions already ignore both.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::{Instant, timeout_at};

use super::failure::store_error;
use super::statements::Statements;
use super::{Inner, PostgresStore};
use crate::store::StoreError;
use crate::store::observer::POSTGRES;

/// How many rows one statement removes. The limit keeps its locks short.
const BATCH: i64 = 1000;

impl PostgresStore {
    /// Removes expired rows, 1,000 in each statement, and returns their number. Skips rows that a
    /// transition has locked. A claim has expired when its lease and its retention have passed.
    ///
    /// Any number of sweeps may run at once. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses the statement.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        self.0.sweep().await
    }
}

impl Inner {
    /// Sends one of the two statements for up to `batch` rows, and returns how many there were.
    ///
    /// A batch has a time limit, so that a missing reply does not stop the sweeper. The limit is
    /// longer than that of a transition, because no request waits for a batch.
    async fn sweep_batch(&self, sweep: &Arc<str>, batch: i64) -> Result<u64, StoreError> {
        let limit = self.patience();
        let deadline = Instant::now() + limit;
        let mut leased = self.connections.acquire(deadline).await?;
        let session = leased.session();
        let sweep = sqlx::query(AssertSqlSafe(sweep.clone())).persistent(false);
        let remove = async {
            let mut transaction = session.begin(limit).await?;
            let done = sweep.bind(batch).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(done.rows_affected())
        };
        match timeout_at(deadline, remove).await {
            Ok(Ok(removed)) => {
                leased.keep();
                Ok(removed)
            }
            Ok(Err(error)) => Err(store_error(error, &self.table)),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// Removes a batch of expired rows, after marking every settled claim.
    pub(super) async fn remove_expired(&self) -> Result<u64, StoreError> {
        let Statements {
            sweep,
            sweep_settled,
            ..
        } = &self.statements;
        while self.sweep_batch(sweep_settled, BATCH).await? >= BATCH.unsigned_abs() {}
        self.sweep_batch(sweep, BATCH).await
    }

    async fn sweep(&self) -> Result<u64, StoreError> {
        let Statements {
            sweep,
            sweep_settled,
            ..
        } = &self.statements;
        let mut removed = 0;
        for statement in [sweep_settled, sweep] {
            loop {
                let batch = self.sweep_batch(statement, BATCH).await?;
                if Arc::ptr_eq(statement, sweep) {
                    removed += batch;
                }
                if batch < BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(removed)
    }
}

/// Sweeps after each pause, until the last clone of the store is dropped.
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
    let inner = store.upgrade()?;
    match inner.sweep().await {
        Ok(removed) => {
            tracing::debug!(target: crate::trace::TARGET, removed, "expired rows were removed");
            if removed > 0 {
                let observer = &inner.connections.observer;
                observer.report(&|observer| observer.swept(POSTGRES, removed));
            }
        }
        Err(error) => tracing::warn!(
            target: crate::trace::TARGET,
            error = &error as &dyn std::error::Error,
            "expired rows could not be removed; the next sweep tries again"
        ),
    }
    Some(())
}
