//! A service that makes payments in its own database.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::{Entry, PostgresStore, Store};
use axum_idem::{Attempt, CommitError, Idempotency, IdempotencyBuilder, Scope, idempotent};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};

use crate::servers::postgres::PostgresServer;
use crate::support::{Runs, Server};

/// Long enough that no lease ends by itself.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Bank {
    pub(crate) pool: PgPool,
    /// Holds the runs that wait.
    pub(crate) runs: Runs,
    /// What the handlers were told by `commit`.
    told: Arc<Mutex<Vec<String>>>,
    pub(crate) isolation: &'static str,
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

impl Bank {
    /// With its table, in the database of this address.
    pub(crate) async fn open(url: &str) -> Self {
        Self::with_connections(url, 5).await
    }

    pub(crate) async fn with_connections(url: &str, connections: u32) -> Self {
        let pool = PgPoolOptions::new().max_connections(connections);
        let pool = pool.connect(url).await.expect("postgres is there");
        let table = "CREATE TABLE IF NOT EXISTS payments (id serial PRIMARY KEY, run text NOT NULL,
            CONSTRAINT twice UNIQUE (run) DEFERRABLE INITIALLY DEFERRED)";
        sqlx::query(table).execute(&pool).await.expect("created");
        Self {
            pool,
            runs: Runs::default(),
            told: Arc::default(),
            isolation: "READ COMMITTED",
        }
    }

    pub(crate) fn isolated(mut self, isolation: &'static str) -> Self {
        self.isolation = isolation;
        self
    }

    pub(crate) async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        let mut tx = self.pool.begin().await?;
        let level = format!("SET TRANSACTION ISOLATION LEVEL {}", self.isolation);
        sqlx::query(sqlx::AssertSqlSafe(level))
            .execute(&mut *tx)
            .await?;
        Ok(tx)
    }

    /// The effect.
    pub(crate) async fn pay(connection: &mut PgConnection, run: &str) -> sqlx::Result<()> {
        let insert = "INSERT INTO payments (run) VALUES ($1)";
        sqlx::query(insert).bind(run).execute(connection).await?;
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

    /// Whether this text was not written down before.
    pub(crate) fn is_first(&self, text: &str) -> bool {
        let mut told = self.told.lock().expect("no panic");
        let is_first = !told.iter().any(|it| it == text);
        told.push(text.to_owned());
        is_first
    }

    /// What was written down since the last call.
    pub(crate) fn take_told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().expect("no panic"))
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().expect("no panic").clone()
    }
}

/// Pays once, and waits for the test between the payment and the commit.
#[idempotent(scope = token, transactional)]
pub(crate) async fn gated(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", attempt.number());
    Bank::pay(&mut tx, &run).await?;
    bank.runs.pass().await;
    let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
    Ok(bank.tell(response)?)
}

#[idempotent(scope = token, transactional)]
pub(crate) async fn pay(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
    Ok(bank.tell(response)?)
}

#[idempotent(scope = token)]
pub(crate) async fn pay_without_the_flag(
    State(bank): State<Bank>,
    attempt: Attempt,
    body: String,
) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
    Ok(bank.tell(response)?)
}

pub(crate) fn routes() -> Router<Bank> {
    Router::new()
        .route("/gated", post(gated))
        .route("/pay", post(pay))
        .route("/plain", post(pay_without_the_flag))
}

/// The service in front of a store, on a socket.
pub(crate) struct Service {
    pub(crate) server: Server,
    pub(crate) bank: Bank,
    pub(crate) idem: Idempotency,
}

impl Service {
    pub(crate) async fn start(bank: Bank, store: impl Store) -> Self {
        Self::with(
            bank,
            Idempotency::builder().store(store).lease(LEASE),
            Router::new(),
        )
        .await
    }

    pub(crate) async fn with(bank: Bank, settings: IdempotencyBuilder, more: Router<Bank>) -> Self {
        let idem = settings.build();
        let router = routes().merge(more).layer(idem.clone());
        let server = Server::start(router.with_state(bank.clone())).await;
        Self { server, bank, idem }
    }

    pub(crate) async fn entry(&self, key: &str) -> Option<Entry> {
        let id = self.id(key);
        self.idem.look_up(id).await.expect("the store replies")
    }

    pub(crate) fn id(&self, key: &str) -> axum_idem::RecordId {
        let scope = Scope::new().token("Bearer alice");
        self.idem.record_id(&scope, key)
    }
}

/// A store without a sweeper, which a test calls itself.
pub(crate) async fn store(url: &str) -> PostgresStore {
    let store = PostgresStore::builder().url(url).no_sweeper();
    let store = store.timeout(Duration::from_secs(20)).connect().await;
    store.expect("postgres is there")
}

/// Ends all leases, as a process does that stops for a long time.
pub(crate) fn lapse(server: &PostgresServer) {
    server.command("UPDATE idem_records SET leased_until = clock_timestamp() WHERE record IS NULL");
}

pub(crate) fn is_unknown(entry: Option<&Entry>) -> bool {
    matches!(entry, Some(Entry::Unknown { .. }))
}

/// A key without spaces.
pub(crate) fn key(text: &str) -> String {
    text.replace([' ', '/'], "-")
}
