//! A service that makes payments in its own SQLite file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum_idem::store::{Entry, SqliteStore};
use axum_idem::{CommitError, Idempotency, RecordId, Scope};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite, Transaction};
use tempfile::TempDir;

use crate::support::{Runs, Server};

/// Long enough that no lease ends by itself.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Bank {
    pub(crate) pool: SqlitePool,
    /// Holds the runs that wait.
    pub(crate) runs: Runs,
    /// What the handlers were told by `commit`.
    told: Arc<Mutex<Vec<String>>>,
}

pub(crate) type Paid = Result<Response, BankError>;

/// The error of the service.
#[derive(Debug)]
pub(crate) enum BankError {
    Database(sqlx::Error),
    Commit(CommitError),
}

impl From<sqlx::Error> for BankError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<CommitError> for BankError {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}

impl IntoResponse for BankError {
    fn into_response(self) -> Response {
        match self {
            Self::Database(error) => {
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
            }
            Self::Commit(error) => error.into_response(),
        }
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
        Self {
            pool,
            runs: Runs::default(),
            told: Arc::default(),
        }
    }

    pub(crate) async fn begin(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    /// The effect.
    pub(crate) async fn pay(connection: &mut SqliteConnection, run: &str) -> sqlx::Result<()> {
        let insert = sqlx::query("INSERT INTO payments (run) VALUES (?1)");
        insert.bind(run.to_owned()).execute(connection).await?;
        Ok(())
    }

    pub(crate) async fn payments(&self) -> Vec<String> {
        let all = sqlx::query_scalar("SELECT run FROM payments ORDER BY id");
        all.fetch_all(&self.pool).await.expect("read")
    }

    /// Writes down how a commit ended.
    pub(crate) fn tell<T>(&self, result: Result<T, CommitError>) -> Result<T, CommitError> {
        let told = match &result {
            Ok(_) => "Ok".to_owned(),
            Err(error) => {
                let text = format!("{error:?}");
                text.split(['(', ' ']).next().unwrap_or_default().to_owned()
            }
        };
        self.told.lock().expect("no panic").push(told);
        result
    }

    /// What was written down since the last call.
    pub(crate) fn take_told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().expect("no panic"))
    }
}

/// The service in front of a store in the same file, on a socket.
pub(crate) struct Service {
    pub(crate) server: Server,
    pub(crate) bank: Bank,
    pub(crate) idem: Idempotency,
    pub(crate) path: PathBuf,
    pub(crate) folder: TempDir,
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
        Self {
            server: Server::start(router).await,
            bank,
            idem,
            path,
            folder,
        }
    }

    pub(crate) fn id(&self, key: &str) -> RecordId {
        let scope = Scope::new().token("Bearer alice");
        self.idem.record_id(&scope, key)
    }

    pub(crate) async fn entry(&self, key: &str) -> Option<Entry> {
        let entry = self.idem.look_up(self.id(key)).await;
        entry.expect("the store replies")
    }

    /// Ends all leases, as when a process stops for a long time.
    pub(crate) async fn lapse(&self) {
        let lapse = sqlx::query(
            "UPDATE idem_records SET leased_until = 1, instance = 0 WHERE record IS NULL",
        );
        lapse.execute(&self.bank.pool).await.expect("written");
    }
}
