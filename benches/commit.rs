//! What a response in the handler's own transaction costs: `cargo bench --bench commit --all-features`.
//!
//! One run measures three handlers in turn, in short rounds (`ROUNDS`, 12): a bare transaction, a transaction
//! whose response is recorded afterwards, and a transaction that contains its response. `CALLERS` (16)
//! tasks call the handler without a socket. The server is a PostgreSQL that flushes its log. The figures
//! are ratios of the calls in a second, and flushes of the log for each call.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::PostgresStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};
use test_support::servers::postgres::PostgresServer;
use tower::ServiceExt as _;

type Paid = Result<Response, CommitError>;

async fn payment(pool: &PgPool) -> Result<Transaction<'static, Postgres>, CommitError> {
    let mut tx = pool.begin().await.map_err(CommitError::Database)?;
    let insert = "INSERT INTO payments (amount) VALUES ($1)";
    let insert = sqlx::query(insert).bind(700_i64).execute(&mut *tx).await;
    insert.map_err(CommitError::Database)?;
    Ok(tx)
}

async fn bare(
    State(pool): State<PgPool>,
    _: String,
) -> Result<(StatusCode, &'static str), CommitError> {
    let tx = payment(&pool).await?;
    tx.commit().await.map_err(CommitError::Database)?;
    Ok((StatusCode::CREATED, RESPONSE))
}

#[idempotent(scope = global)]
async fn afterwards(
    State(pool): State<PgPool>,
    _: String,
) -> Result<(StatusCode, &'static str), CommitError> {
    let tx = payment(&pool).await?;
    tx.commit().await.map_err(CommitError::Database)?;
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

const RESPONSE: &str = r#"{"id":"pay_2291","amount":700,"currency":"EUR","status":"succeeded"}"#;

const CASES: [(&str, &str); 4] = [
    ("/bare", "a bare transaction"),
    ("/afterwards", "recorded after the commit"),
    ("/inside", "recorded in the transaction"),
    ("/transactional", "the same, transactional"),
];

fn number(name: &str, otherwise: usize) -> usize {
    env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[tokio::main]
async fn main() {
    if env::args().any(|argument| argument == "--test") {
        return;
    }
    let (rounds, callers) = (number("ROUNDS", 12), number("CALLERS", 16));
    let server = PostgresServer::with(&["fsync=on", "shared_buffers=256MB", "max_wal_size=4GB"]);
    server.command("CREATE TABLE payments (id bigserial PRIMARY KEY, amount bigint NOT NULL)");
    let connections = u32::try_from(callers).expect("a number of connections");
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .test_before_acquire(false);
    let pool = pool
        .connect(&server.url())
        .await
        .expect("postgres is there");
    let store = PostgresStore::builder().url(server.url());
    let store = store.max_connections(connections).no_sweeper();
    let store = store.connect().await.expect("postgres is there");
    let idem = Idempotency::builder().store(store).build();
    let router = Router::new()
        .route("/afterwards", post(afterwards))
        .route("/inside", post(inside))
        .route("/transactional", post(transactional))
        .layer(idem)
        .route("/bare", post(bare))
        .with_state(pool);

    let keys = Arc::new(AtomicUsize::new(0));
    let mut rates = CASES.map(|_| Vec::new());
    let mut flushes = CASES.map(|_| Vec::new());
    for round in 0..=rounds {
        for (at, (path, _)) in CASES.iter().enumerate() {
            let before = synced(&server);
            let (calls, took) = run(&router, path, callers, &keys).await;
            let after = synced(&server);
            // The first round opens connections and fills caches.
            if round > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a small number")]
                let calls = calls as f64;
                rates[at].push(calls / took.as_secs_f64());
                flushes[at].push((after - before) / calls);
            }
        }
    }
    println!(
        "{callers} callers, a log that is flushed: calls in a second, ratio to a bare transaction, and"
    );
    println!("flushes of the log for each call");
    for (at, (_, name)) in CASES.iter().enumerate() {
        let ratios = rates[at]
            .iter()
            .zip(&rates[0])
            .map(|(rate, bare)| rate / bare);
        let ratios: Vec<_> = ratios.collect();
        let [low, middle, high] = quartiles(ratios);
        let [_, for_each, _] = quartiles(flushes[at].clone());
        println!("{name:<34} {middle:>5.2} ({low:.2} to {high:.2}) {for_each:>6.2}");
    }
}

/// Calls a handler from several tasks for a while. Returns the number of calls and how long they took.
async fn run(
    router: &Router,
    path: &'static str,
    callers: usize,
    keys: &Arc<AtomicUsize>,
) -> (usize, Duration) {
    let begun = Instant::now();
    let until = begun + Duration::from_millis(1_500);
    let callers = (0..callers).map(|_| {
        let (router, keys) = (router.clone(), keys.clone());
        tokio::spawn(async move {
            let mut calls = 0;
            while Instant::now() < until {
                let key = keys.fetch_add(1, Ordering::Relaxed);
                let request = Request::post(path)
                    .header("idempotency-key", format!("key-{key:032}"))
                    .header("authorization", "Bearer alice")
                    .body(Body::from("{\"amount\":700}"));
                let response = router.clone().oneshot(request.expect("a request")).await;
                let response = response.expect("a router does not fail");
                assert_eq!(response.status(), StatusCode::CREATED, "{path}");
                calls += 1;
            }
            calls
        })
    });
    let mut calls = 0;
    for caller in callers.collect::<Vec<_>>() {
        calls += caller.await.expect("no panic");
    }
    (calls, begun.elapsed())
}

fn synced(server: &PostgresServer) -> f64 {
    let synced =
        server.command("SELECT pg_stat_force_next_flush(); SELECT wal_sync FROM pg_stat_wal");
    let number = synced.lines().last().and_then(|line| line.parse().ok());
    number.expect("a number")
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
