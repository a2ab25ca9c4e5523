//! axum-sqlx-tx below the `Idempotency` layer, on PostgreSQL: the transaction that its layer commits and the
//! record of the response are both kept or both discarded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use sqlx::{PgPool, Postgres};
use test_support::http::{Runs, Server, post_bytes};
use test_support::servers::postgres::PostgresServer;

type Tx = axum_sqlx_tx::Tx<Postgres>;

#[derive(Clone)]
struct App {
    transactions: axum_sqlx_tx::State<Postgres>,
    pool: PgPool,
    runs: Runs,
    started: Arc<AtomicUsize>,
}

impl FromRef<App> for axum_sqlx_tx::State<Postgres> {
    fn from_ref(app: &App) -> Self {
        app.transactions.clone()
    }
}

/// Adds a row. A deferred constraint checks the amount at the commit.
#[idempotent(scope = global)]
async fn pay(State(app): State<App>, mut tx: Tx, amount: String) -> (StatusCode, String) {
    let run = app.started.fetch_add(1, Ordering::SeqCst) + 1;
    let amount: i32 = amount.parse().expect("a number");
    sqlx::query("INSERT INTO payments (run, amount) VALUES ($1, $2)")
        .bind(i32::try_from(run).expect("few runs"))
        .bind(amount)
        .execute(&mut tx)
        .await
        .expect("the constraint is deferred");
    (StatusCode::CREATED, format!("run {run}"))
}

#[idempotent(scope = global)]
async fn pay_slowly(State(app): State<App>, mut tx: Tx) -> (StatusCode, String) {
    sqlx::query("INSERT INTO payments (run, amount) VALUES (1, 1)")
        .execute(&mut tx)
        .await
        .expect("the constraint is deferred");
    let run = app.runs.pass().await;
    (StatusCode::CREATED, format!("run {run}"))
}

/// Commits by itself, before it responds. The layer has nothing left to commit.
#[idempotent(scope = global)]
async fn pay_and_commit(State(app): State<App>, amount: String) -> Result<String, StatusCode> {
    let run = app.started.fetch_add(1, Ordering::SeqCst) + 1;
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let mut tx = app.pool.begin().await.map_err(failed)?;
    sqlx::query("INSERT INTO payments (run, amount) VALUES ($1, $2)")
        .bind(i32::try_from(run).expect("few runs"))
        .bind(amount.parse::<i32>().expect("a number"))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(format!("run {run}"))
}

/// The commit of a payment fails until there is an account with its amount.
const TABLES: &str = "
    CREATE TABLE accounts (amount int PRIMARY KEY);
    INSERT INTO accounts VALUES (1);
    CREATE TABLE payments (
        run int NOT NULL,
        amount int NOT NULL REFERENCES accounts DEFERRABLE INITIALLY DEFERRED
    );
";

struct Setup {
    // Stops the server when the test ends.
    _postgres: PostgresServer,
    server: Server,
    app: App,
    idem: Idempotency,
}

async fn start() -> Setup {
    let postgres = PostgresServer::start();
    let pool = PgPool::connect(&postgres.url())
        .await
        .expect("postgres is there");
    sqlx::raw_sql(TABLES).execute(&pool).await.expect("tables");
    let (transactions, layer) = Tx::setup(pool.clone());
    let app = App {
        transactions,
        pool,
        runs: Runs::default(),
        started: Arc::default(),
    };
    let idem = Idempotency::in_memory();
    let router = Router::new()
        .route("/pay", post(pay))
        .route("/slow", post(pay_slowly))
        .route("/commits", post(pay_and_commit))
        .with_state(app.clone())
        .layer(layer)
        .layer(idem.clone());
    Setup {
        _postgres: postgres,
        server: Server::start(router).await,
        app,
        idem,
    }
}

impl Setup {
    async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM payments")
            .fetch_one(&self.app.pool)
            .await
            .expect("postgres is there")
    }

    /// Lets the payment of 7 commit, which fails before.
    async fn open_account(&self) {
        sqlx::query("INSERT INTO accounts VALUES (7)")
            .execute(&self.app.pool)
            .await
            .expect("postgres is there");
    }
}

/// In `/pay` the layer commits the transaction. In `/commits` the handler commits it.
#[tokio::test]
async fn a_transaction_that_cannot_be_committed_is_not_recorded() {
    for path in ["/pay", "/commits"] {
        let setup = start().await;
        assert_eq!(setup.server.post(path, "k", "7").await.status, 500);
        assert_eq!(setup.rows().await, 0);
        setup.open_account().await;
        let retry = setup.server.post(path, "k", "7").await;
        assert_eq!(
            (retry.text(), retry.is_replay()),
            ("run 2", false),
            "{path}"
        );
        let replay = setup.server.post(path, "k", "7").await;
        assert_eq!(
            (replay.text(), replay.is_replay()),
            ("run 2", true),
            "{path}"
        );
        assert_eq!(setup.rows().await, 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_roll_the_transaction_back() {
    let setup = start().await;
    let stream = setup.server.write(post_bytes("/slow", "k", "")).await;
    setup.app.runs.until_started(1).await;
    drop(stream);
    for _ in 0..20 {
        // The server sees the close by the time that it has responded to others.
        let duplicate = setup.server.post("/slow", "k", "").await;
        assert_eq!(duplicate.code(), "idempotency_key_in_flight");
    }
    setup.app.runs.open(1);
    assert_eq!(setup.idem.drain(Duration::from_secs(30)).await, 0);
    assert!(setup.server.post("/slow", "k", "").await.is_replay());
    assert_eq!(setup.rows().await, 1);
}
