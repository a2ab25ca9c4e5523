//! Connections that read while the writer works. In WAL mode no reader waits for a writer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::clock::ReadClock;
use crate::store::observer::{SQLITE, StoreObserver};

/// How many connections read at once. Each has a thread.
pub(super) const READERS: usize = 4;

pub(super) struct Readers {
    options: SqliteConnectOptions,
    idle: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
    clock: Arc<ReadClock>,
    observer: Arc<StoreObserver>,
}

/// The wait for a connection. Reports its duration when it ends, also when its caller gives up.
struct Wait<'a> {
    observer: &'a StoreObserver,
    began: Instant,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let waited = self.began.elapsed();
        self.observer
            .report(&|observer| observer.connection_awaited(SQLITE, waited));
    }
}

impl Readers {
    pub(super) fn new(
        options: SqliteConnectOptions,
        clock: Arc<ReadClock>,
        observer: Arc<StoreObserver>,
    ) -> Self {
        Self {
            options: options.pragma("query_only", "ON"),
            idle: Mutex::default(),
            permits: Semaphore::new(READERS),
            clock,
            observer,
        }
    }

    /// Reads. The closure gets a connection and the time, which is earlier than what the closure reads: a
    /// row that changes in between must not be judged by a later time. A connection whose read failed or
    /// was dropped is closed.
    pub(super) async fn read<T, E: From<sqlx::Error>>(
        &self,
        read: impl AsyncFnOnce(&mut SqliteConnection, i64) -> Result<T, E>,
    ) -> Result<T, E> {
        let _permit = self.permit().await;
        let idle = self.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let result = read(&mut connection, self.clock.now()).await?;
        self.lock().push(connection);
        Ok(result)
    }

    /// A permit to read, or `None` if the semaphore is closed, which it never is.
    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Some(permit);
        }
        let _wait = Wait {
            observer: &self.observer,
            began: Instant::now(),
        };
        self.permits.acquire().await.ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
