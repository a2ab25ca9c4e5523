//! The handlers on PostgreSQL.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::PostgresStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};
use test_support::servers::postgres::PostgresServer;

use crate::{Measured, RESPONSE};

type Paid = Result<Response, CommitError>;
type Responded = Result<(StatusCode, &'static str), CommitError>;

async fn payment(pool: &PgPool) -> Result<Transaction<'static, Postgres>, CommitError> {
    let mut tx = pool.begin().await?;
    let insert = "INSERT INTO payments (amount) VALUES ($1)";
    sqlx::query(insert).bind(700_i64).execute(&mut *tx).await?;
    Ok(tx)
}

async fn bare(State(pool): State<PgPool>, _: String) -> Responded {
    payment(&pool).await?.commit().await?;
    Ok((StatusCode::CREATED, RESPONSE))
}

#[idempotent(scope = global)]
async fn afterwards(State(pool): State<PgPool>, _: String) -> Responded {
    payment(&pool).await?.commit().await?;
    Ok((StatusCode::CREATED, RESPONSE))
}

#[idempotent(scope = global)]
async fn inside(State(pool): State<PgPool>, attempt: Attempt, _: String) -> Paid {
    let tx = payment(&pool).await?;
    attempt.commit(tx, (StatusCode::CREATED, RESPONSE)).await
}

#[idempotent(scope = global, transactional)]
async fn transactional(State(pool): State<PgPool>, attempt: Attempt, _: String) -> Paid {
    let tx = payment(&pool).await?;
    attempt.commit(tx, (StatusCode::CREATED, RESPONSE)).await
}

pub(crate) async fn measure(callers: usize) -> Measured {
    let server = PostgresServer::with(&["fsync=on", "shared_buffers=256MB", "max_wal_size=4GB"]);
    server.command("CREATE TABLE payments (id bigserial PRIMARY KEY, amount bigint NOT NULL)");
    let connections = u32::try_from(callers).expect("a number of connections");
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .test_before_acquire(false);
    let pool = pool.connect(&server.url()).await;
    let store = PostgresStore::builder().url(server.url());
    let store = store.max_connections(connections).no_sweeper();
    let store = store.connect().await.expect("postgres is there");
    let router = Router::new()
        .route("/afterwards", post(afterwards))
        .route("/inside", post(inside))
        .route("/transactional", post(transactional))
        .layer(Idempotency::builder().store(store).build())
        .route("/bare", post(bare))
        .with_state(pool.expect("postgres is there"));
    Measured::new(&router, callers, || synced(&server)).await
}

fn synced(server: &PostgresServer) -> f64 {
    let synced =
        server.command("SELECT pg_stat_force_next_flush(); SELECT wal_sync FROM pg_stat_wal");
    let number = synced.lines().last().and_then(|line| line.parse().ok());
    number.expect("a number")
}
