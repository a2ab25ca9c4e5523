//! A service whose store and whose own pool are behind `PgBouncer`, with a pool of sessions for each transaction.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::PostgresStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use test_support::http::Server;
use test_support::servers::pgbouncer::PgBouncer;
use test_support::servers::postgres::PostgresServer;

#[idempotent(scope = token, transactional)]
async fn pay(
    State(pool): State<PgPool>,
    attempt: Attempt,
    amount: String,
) -> Result<Response, CommitError> {
    let mut tx = pool.begin().await?;
    let insert = "INSERT INTO payments (amount) VALUES ($1) RETURNING id";
    let id: i32 = sqlx::query_scalar(insert)
        .persistent(false)
        .bind(amount.parse::<i32>().expect("a number"))
        .fetch_one(&mut *tx)
        .await?;
    let response = (StatusCode::CREATED, format!("payment {id}"));
    attempt.commit(tx, response).await
}

#[tokio::test]
async fn commits_in_the_handlers_transaction_work_through_a_pooler() {
    let postgres = PostgresServer::start();
    postgres.command("CREATE TABLE payments (id serial PRIMARY KEY, amount int NOT NULL)");
    let bouncer = PgBouncer::in_front_of(&postgres, "transaction");
    let options: PgConnectOptions = bouncer.url().parse().expect("a URL");
    let options = options.extra_float_digits(None).statement_cache_capacity(0);
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await
        .expect("pgbouncer is there");
    let store = PostgresStore::builder()
        .url(bouncer.url())
        .timeout(std::time::Duration::from_secs(20))
        .connect()
        .await
        .expect("pgbouncer is there");
    let idem = Idempotency::builder().store(store).build();
    let router = Router::new()
        .route("/pay", post(pay))
        .layer(idem)
        .with_state(pool);
    let server = Server::start(router).await;

    let keys: Vec<_> = (0..20).map(|number| format!("k{number}")).collect();
    let first = join_all(keys.iter().map(|key| server.post("/pay", key, "5"))).await;
    let retries = join_all(keys.iter().map(|key| server.post("/pay", key, "5"))).await;
    for (first, retry) in first.iter().zip(&retries) {
        assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
        assert!(retry.is_replay(), "{retry:?}");
        assert_eq!(first.text(), retry.text());
    }
    assert_eq!(postgres.command("SELECT count(*) FROM payments"), "20");
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    assert_eq!(postgres.command(open), "0");
}
