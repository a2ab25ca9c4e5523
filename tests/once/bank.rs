//! A service that makes payments in its own database.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{Entry, PostgresStore, Store};
use axum_idem::{Attempt, Idempotency, IdempotencyBuilder, idempotent};
use sqlx::postgres::{PgConnection, PgPoolOptions};
use sqlx::{Postgres, Transaction};

use crate::servers::postgres::PostgresServer;
use crate::shared::bank::{self, Payments};
pub(crate) use crate::shared::bank::{BankError, LEASE, Paid, after};
use crate::support::Server;

pub(crate) type Bank = bank::Bank<Postgres>;
pub(crate) type Service = bank::Service<Postgres>;

impl Payments for Postgres {
    async fn begin(bank: &Bank) -> sqlx::Result<Transaction<'static, Self>> {
        let mut tx = bank.pool.begin().await?;
        let level = format!("SET TRANSACTION ISOLATION LEVEL {}", bank.isolation);
        sqlx::query(sqlx::AssertSqlSafe(level))
            .execute(&mut *tx)
            .await?;
        Ok(tx)
    }

    async fn pay(connection: &mut PgConnection, run: &str) -> sqlx::Result<()> {
        let insert = "INSERT INTO payments (run) VALUES ($1)";
        sqlx::query(insert).bind(run).execute(connection).await?;
        Ok(())
    }

    async fn break_constraint(connection: &mut PgConnection) -> sqlx::Result<()> {
        let insert = "INSERT INTO payments (run) SELECT run FROM payments ORDER BY id DESC LIMIT 1";
        sqlx::query(insert).execute(connection).await?;
        Ok(())
    }

    async fn payments(bank: &Bank) -> Vec<String> {
        let all = sqlx::query_scalar("SELECT run FROM payments ORDER BY id");
        all.fetch_all(&bank.pool).await.expect("read")
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
        Self::new(pool)
    }

    pub(crate) fn isolated(mut self, isolation: &'static str) -> Self {
        self.isolation = isolation;
        self
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
    Ok(bank.note(response)?)
}

#[idempotent(scope = token, transactional)]
pub(crate) async fn pay(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
    Ok(bank.note(response)?)
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
    Ok(bank.note(response)?)
}

/// Commits nothing together with its record.
#[idempotent(scope = token)]
pub(crate) async fn unmanaged(State(bank): State<Bank>, body: String) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{body} {}", bank.runs.count()))
}

pub(crate) fn routes() -> Router<Bank> {
    Router::new()
        .route("/unmanaged", post(unmanaged))
        .route("/gated", post(gated))
        .route("/pay", post(pay))
        .route("/plain", post(pay_without_the_flag))
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

/// Ends the retention of all claims.
pub(crate) fn expire(server: &PostgresServer) {
    let past = "clock_timestamp() - interval '1 second'";
    server.command(&format!(
        "UPDATE idem_records SET leased_until = {past}, expires_at = {past} WHERE record IS NULL"
    ));
}

pub(crate) fn is_unknown(entry: Option<&Entry>) -> bool {
    matches!(entry, Some(Entry::Unknown { .. }))
}

/// A key without spaces.
pub(crate) fn key(text: &str) -> String {
    text.replace([' ', '/'], "-")
}
