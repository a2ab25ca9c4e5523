//! The handlers on PostgreSQL.

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::PostgresStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};
use test_support::servers::postgres::PostgresServer;

use crate::spent::Spent;
use crate::{Measured, RESPONSE};

/// The pool of the handlers, and a pool for claims whose commits do not wait for the disk.
#[derive(Clone, FromRef)]
struct Pools {
    handlers: PgPool,
    claims: Claims,
}

#[derive(Clone)]
struct Claims(PgPool);

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

/// The round trips of `transactional` without the library: the limit for it.
async fn by_hand(State(pools): State<Pools>, headers: HeaderMap, _: String) -> Responded {
    let key = headers["idempotency-key"].as_bytes();
    let claim = "INSERT INTO claims VALUES ($1) ON CONFLICT DO NOTHING";
    let claim = sqlx::query(claim).bind(key);
    let claimed = claim.execute(&pools.claims.0).await?;
    assert_eq!(claimed.rows_affected(), 1);
    let mut tx = payment(&pools.handlers).await?;
    let record = sqlx::query("INSERT INTO responses VALUES ($1, $2)").bind(key);
    record.bind(RESPONSE).execute(&mut *tx).await?;
    tx.commit().await?;
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
    server.command("CREATE TABLE claims (key bytea PRIMARY KEY)");
    server.command("CREATE TABLE responses (key bytea PRIMARY KEY, body text NOT NULL)");
    let connections = u32::try_from(callers).expect("a number of connections");
    let options: PgConnectOptions = server.url().parse().expect("a URL");
    let quick = options.clone().options([("synchronous_commit", "off")]);
    let pool = async |options| {
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(connections)
            .test_before_acquire(false);
        pool.connect_with(options).await.expect("postgres is there")
    };
    let pools = Pools {
        handlers: pool(options).await,
        claims: Claims(pool(quick).await),
    };
    let store = PostgresStore::builder().url(server.url());
    let store = store.max_connections(connections).no_sweeper();
    let store = store.connect().await.expect("postgres is there");
    let router = Router::new()
        .route("/afterwards", post(afterwards))
        .route("/inside", post(inside))
        .route("/transactional", post(transactional))
        .layer(Idempotency::builder().store(store).build())
        .route("/bare", post(bare))
        .route("/by_hand", post(by_hand))
        .with_state(pools);
    Measured::new(&router, callers, || Spent::of(&server)).await
}
