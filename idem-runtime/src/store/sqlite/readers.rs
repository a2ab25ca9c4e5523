//! Connections that read beside the writer. In WAL mode no reader waits for a writer.

use std::sync::{Mutex, PoisonError};

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::Semaphore;

/// How many connections read at once. Each has a thread.
const READERS: usize = 4;

pub(super) struct Readers {
    options: SqliteConnectOptions,
    idle: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
}

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self {
            options: options.pragma("query_only", "ON"),
            idle: Mutex::default(),
            permits: Semaphore::new(READERS),
        }
    }

    /// Reads. A connection whose read failed or was dropped is closed.
    pub(super) async fn read<T, E: From<sqlx::Error>>(
        &self,
        read: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let idle = self.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let result = read(&mut connection).await?;
        self.lock().push(connection);
        Ok(result)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
