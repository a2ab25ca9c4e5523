//! Tests a full memory store.

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use axum_idem::store::{MemoryStore, OnFull};
use axum_idem::{Idempotency, idempotent};

use crate::support::{Runs, Server};

#[idempotent(scope = token)]
async fn count(State(runs): State<Runs>) -> String {
    format!("{:0>100}", runs.count())
}

async fn start(store: MemoryStore) -> (Server, Runs) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/count", post(count))
        .layer(Idempotency::builder().store(store).build())
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

#[tokio::test]
async fn a_full_store_refuses_new_keys_and_still_replays_its_records() {
    let (server, runs) = start(
        MemoryStore::builder()
            .max_bytes(30_000)
            .max_share(1.0)
            .build(),
    )
    .await;
    let mut taken = Vec::new();
    let refused = loop {
        let key = taken.len().to_string();
        let answer = server.post("/count", &key, "").await;
        if answer.status != 200 {
            break answer;
        }
        taken.push((key, answer.body));
    };
    assert!(taken.len() > 20, "{} records", taken.len());
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, "idempotency_capacity")
    );
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(
        server.post("/count", "new", "").await.code(),
        "idempotency_capacity"
    );
    for (key, body) in &taken {
        let replay = server.post("/count", key, "").await;
        assert!(replay.is_replay());
        assert_eq!(replay.body, body);
    }
    assert_eq!(runs.started(), taken.len());
}

#[tokio::test]
async fn a_store_that_may_evict_accepts_every_new_key() {
    let store = MemoryStore::builder()
        .max_bytes(30_000)
        .max_share(1.0)
        .on_full(OnFull::EvictOldest)
        .build();
    let (server, runs) = start(store.clone()).await;
    for key in 0..200 {
        assert_eq!(
            server.post("/count", &key.to_string(), "").await.status,
            200
        );
    }
    assert!(store.evicted() > 0);
    assert!(server.post("/count", "199", "").await.is_replay());
    assert!(!server.post("/count", "0", "").await.is_replay());
    assert_eq!(runs.started(), 201);
}
