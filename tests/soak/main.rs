//! Mixed traffic for as long as it is told: retries, duplicates, disconnects, reused keys; a memory
//! store at the end of its budget, and a Redis that is killed and started again.
//!
//! ```sh
//! IDEM_SOAK_SECONDS=600 cargo test --release --features redis --test soak -- --nocapture
//! ```
//!
//! `IDEM_SEED=7` sends other requests; what the scheduler makes of them is its own.
//!
//! No key runs twice, no answer that a client has had is ever another one, and the process does not
//! grow. Ten seconds in the gate, where there is no plateau to look at.

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
/// Soon spent, on a busy machine too: what a hundred writes a second leave within the `ttl`.
const MEMORY: usize = 1 << 20;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// Counts the run, takes a moment where its body begins with `w`, and answers with its body.
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

/// Longer, since a client may find Redis away for a while.
#[idempotent(scope = global, ttl = "60s", in_flight = wait("1s"))]
async fn in_redis(
    State(runs): State<Arc<Runs>>,
    key: IdempotencyKey,
    body: Bytes,
) -> (StatusCode, Bytes) {
    run(&runs, &key, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_twice_nothing_is_lost_and_nothing_grows() {
    let (seconds, seed) = (number("IDEM_SOAK_SECONDS", 10), number("IDEM_SEED", 1));
    println!("IDEM_SEED={seed} IDEM_SOAK_SECONDS={seconds}");
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut redis = RedisServer::with(&durable);
    let store = RedisStore::connect(redis.url())
        .await
        .expect("redis is there");
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
            .expect("it starts again");
        }
    }
    tally.end();
    for client in clients {
        client
            .await
            .expect("no client has anything to complain about");
    }
    tally.report(begun.elapsed());
    tally.check(seconds >= 60);
}
