//! A service that makes payments in its own SQLite file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum_idem::Idempotency;
use axum_idem::store::SqliteStore;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite, Transaction};
use tempfile::TempDir;

use crate::shared::bank::{self, Payments};
pub(crate) use crate::shared::bank::{BankError, LEASE, Paid, after};
use crate::support::Server;

pub(crate) type Bank = bank::Bank<Sqlite>;

impl Payments for Sqlite {
    async fn begin(bank: &Bank) -> sqlx::Result<Transaction<'static, Self>> {
        bank.pool.begin_with("BEGIN IMMEDIATE").await
    }

    async fn pay(connection: &mut SqliteConnection, run: &str) -> sqlx::Result<()> {
        let insert = sqlx::query("INSERT INTO payments (run) VALUES (?1)");
        insert.bind(run.to_owned()).execute(connection).await?;
        Ok(())
    }

    async fn break_constraint(connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let update = sqlx::query("UPDATE payments SET account = 700");
        update.execute(connection).await?;
        Ok(())
    }

    async fn payments(bank: &Bank) -> Vec<String> {
        let all = sqlx::query_scalar("SELECT run FROM payments ORDER BY id");
        all.fetch_all(&bank.pool).await.expect("read")
    }
}

/// A pool of one connection, so that every test notices when something waits for a second one.
pub(crate) async fn pool(options: SqliteConnectOptions) -> SqlitePool {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5));
    pool.connect_with(options).await.expect("the file opens")
}

pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new().filename(path);
    options
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(10))
}

impl Bank {
    /// With its table, in this file.
    pub(crate) async fn open(path: &Path) -> Self {
        let pool = pool(options(path)).await;
        let table =
            "CREATE TABLE IF NOT EXISTS payments (id INTEGER PRIMARY KEY, run TEXT NOT NULL,
            account INTEGER REFERENCES payments (id) DEFERRABLE INITIALLY DEFERRED)";
        sqlx::query(table).execute(&pool).await.expect("created");
        Self::new(pool)
    }
}

/// The service in front of a store in the same file, on a socket.
pub(crate) struct Service {
    pub(crate) shared: bank::Service<Sqlite>,
    pub(crate) path: PathBuf,
    pub(crate) folder: TempDir,
}

impl std::ops::Deref for Service {
    type Target = bank::Service<Sqlite>;

    fn deref(&self) -> &Self::Target {
        &self.shared
    }
}

impl Service {
    pub(crate) async fn start(handlers: Router<Bank>) -> Self {
        Self::with(handlers, LEASE, Duration::from_secs(2)).await
    }

    pub(crate) async fn with(
        handlers: Router<Bank>,
        lease: Duration,
        busy_timeout: Duration,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bank.db");
        let store = SqliteStore::builder().path(&path).no_sweeper();
        let store = store
            .busy_timeout(busy_timeout)
            .open()
            .await
            .expect("the file opens");
        let idem = Idempotency::builder().store(store).lease(lease).build();
        let bank = Bank::open(&path).await;
        let router = handlers.layer(idem.clone()).with_state(bank.clone());
        let server = Server::start(router).await;
        Self {
            shared: bank::Service { server, bank, idem },
            path,
            folder,
        }
    }

    /// Ends all leases, as when a process stops for a long time.
    pub(crate) async fn lapse(&self) {
        let lapse = sqlx::query(
            "UPDATE idem_records SET leased_until = 1, instance = 0 WHERE record IS NULL",
        );
        lapse.execute(&self.bank.pool).await.expect("written");
    }
}
