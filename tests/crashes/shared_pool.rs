//! Tests handlers that hold every connection of the pool that the store shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use axum_idem::store::PostgresStore;
use axum_idem::{Idempotency, idempotent};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use test_support::servers::eventually_async;
use test_support::servers::postgres::PostgresServer;

const LEASE: Duration = Duration::from_secs(3);

#[derive(Clone)]
struct Bank {
    pool: PgPool,
    effects: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

#[idempotent(scope = global)]
async fn pay(State(bank): State<Bank>) -> StatusCode {
    let _held = bank
        .pool
        .acquire()
        .await
        .expect("PostgreSQL accepts connections");
    bank.effects.fetch_add(1, Ordering::SeqCst);
    let _open = bank
        .gate
        .acquire()
        .await
        .expect("the semaphore is never closed");
    StatusCode::CREATED
}

/// Starts one process with a pool of two connections.
async fn process(server: &PostgresServer, bank: impl FnOnce(PgPool) -> Bank) -> Router {
    let pool = PgPoolOptions::new().max_connections(2);
    let pool = pool.connect(&server.url()).await;
    let pool = pool.expect("PostgreSQL accepts connections");
    let builder = PostgresStore::builder().pool(pool.clone());
    let store = builder.timeout(Duration::from_secs(20)).connect().await;
    let store = store.expect("PostgreSQL accepts connections");
    let idem = Idempotency::builder().store(store).lease(LEASE).build();
    Router::new()
        .route("/pay", post(pay))
        .layer(idem)
        .with_state(bank(pool))
}

async fn ask(process: Router, key: &str) -> StatusCode {
    let request = Request::post("/pay").header("idempotency-key", key);
    let request = request.body(Body::empty()).expect("a valid request");
    let response = process.oneshot(request).await;
    response.expect("infallible").status()
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_exhaust_a_shared_pool_keep_their_leases() {
    let server = PostgresServer::start();
    let effects = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let bank = |pool| Bank {
        pool,
        effects: effects.clone(),
        gate: gate.clone(),
    };
    let first = process(&server, bank).await;
    let second = process(&server, bank).await;
    let running = ["a-payment", "another-payment"].map(|key| {
        let first = first.clone();
        tokio::spawn(async move { ask(first, key).await })
    });
    eventually_async("both handlers run", async || {
        (effects.load(Ordering::SeqCst) == 2).then_some(())
    })
    .await;
    let end = Instant::now() + LEASE * 3;
    while Instant::now() < end {
        let retry = tokio::spawn(ask(second.clone(), "a-payment"));
        // A wrong second run would wait at the gate, so the test does not wait for it.
        let _ = tokio::time::timeout(LEASE, retry).await;
        tokio::time::sleep(LEASE / 10).await;
        assert_eq!(
            effects.load(Ordering::SeqCst),
            2,
            "a retry ran while the first run still ran"
        );
    }
    gate.add_permits(10);
    for run in running {
        assert_eq!(run.await.expect("no panic"), StatusCode::CREATED);
    }
    let replay = ask(second, "a-payment").await;
    assert_eq!(replay, StatusCode::CREATED);
    assert_eq!(effects.load(Ordering::SeqCst), 2);
}
