//! Sends mixed traffic for a given time: retries, duplicates, disconnects and reused keys. The memory
//! store is full, and Redis is killed and restarted.
//!
//! ```sh
//! IDEM_SOAK_SECONDS=600 cargo test --release --features redis --test soak -- --nocapture
//! ```
//!
//! `IDEM_SEED=7` sends other requests. The scheduler of the operating system still varies.
//!
//! No key runs twice, no response changes, and the process does not grow. The gate runs the soak for
//! ten seconds, which is too short to check the growth.

mod tally;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{MemoryStore, RedisStore};
use axum_idem::{Idempotency, IdempotencyKey, idempotent};
use test_support::{http as support, servers};
use tokio::time::Instant;

use servers::redis::RedisServer;
use support::Server;
use tally::{Runs, Tally};

const CLIENTS: usize = 12;
/// Full after a short time even on a busy machine: about a hundred writes per second within the `ttl`.
const MEMORY: usize = 1 << 20;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// Counts the run and returns the body. A body that begins with `w` makes the handler wait first.
async fn run(runs: &Runs, key: &IdempotencyKey, body: Bytes) -> (StatusCode, Bytes) {
    runs.count(key.as_str());
    if body.starts_with(b"w") {
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    (StatusCode::CREATED, body)
}

#[idempotent(scope = global, ttl = "15s")]
async fn in_memory(
    State(runs): State<Arc<Runs>>,
    key: IdempotencyKey,
    body: Bytes,
) -> (StatusCode, Bytes) {
    run(&runs, &key, body).await
}

/// A longer `ttl`, because a client may not reach Redis for a while.
#[idempotent(scope = global, ttl = "60s", in_flight = wait("1s"))]
async fn in_redis(
    State(runs): State<Arc<Runs>>,
    key: IdempotencyKey,
    body: Bytes,
) -> (StatusCode, Bytes) {
    run(&runs, &key, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_runs_twice_no_response_changes_and_memory_does_not_grow() {
    let (seconds, seed) = (number("IDEM_SOAK_SECONDS", 10), number("IDEM_SEED", 1));
    println!("IDEM_SEED={seed} IDEM_SOAK_SECONDS={seconds}");
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut redis = RedisServer::with(&durable);
    let store = RedisStore::connect(redis.url())
        .await
        .expect("Redis accepts connections");
    let [memory, redis_settings] = [
        Idempotency::builder().store(MemoryStore::builder().max_bytes(MEMORY).build()),
        Idempotency::builder().store(store),
    ];
    let runs = Arc::new(Runs::default());
    let router = Router::new()
        .route("/memory", post(in_memory).layer(memory.build()))
        .route("/redis", post(in_redis).layer(redis_settings.build()))
        .with_state(runs.clone());
    let server = Server::start(router).await;

    let tally = Arc::new(Tally::new(runs));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(traffic::send(server, client, seed, tally.clone())))
        .collect();
    let (begun, mut next_restart) = (Instant::now(), Duration::from_secs(4));
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tally.look(begun.elapsed());
        if begun.elapsed() > next_restart {
            next_restart += Duration::from_secs(20);
            redis = tokio::task::spawn_blocking(move || {
                redis.kill();
                redis.start_again();
                redis
            })
            .await
            .expect("Redis restarts");
        }
    }
    tally.end();
    for client in clients {
        client.await.expect("no client fails");
    }
    tally.report(begun.elapsed());
    tally.check(seconds >= 60);
}
