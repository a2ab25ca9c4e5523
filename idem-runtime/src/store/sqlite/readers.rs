//! Connections that read beside the writer. In WAL mode no reader waits for a writer.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::Semaphore;

use super::clock::ReadClock;

/// How many connections read at once. Each has a thread.
const READERS: usize = 4;

pub(super) struct Readers {
    options: SqliteConnectOptions,
    idle: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
    clock: Arc<ReadClock>,
}

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions, clock: Arc<ReadClock>) -> Self {
        Self {
            options: options.pragma("query_only", "ON"),
            idle: Mutex::default(),
            permits: Semaphore::new(READERS),
            clock,
        }
    }

    /// Reads. The closure gets a connection and the time, which is earlier than what the closure reads: a
    /// row that changes in between must not be judged by a later time. A connection whose read failed or
    /// was dropped is closed.
    pub(super) async fn read<T, E: From<sqlx::Error>>(
        &self,
        read: impl AsyncFnOnce(&mut SqliteConnection, i64) -> Result<T, E>,
    ) -> Result<T, E> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let idle = self.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let result = read(&mut connection, self.clock.now()).await?;
        self.lock().push(connection);
        Ok(result)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
