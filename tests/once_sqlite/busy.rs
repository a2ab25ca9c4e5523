//! Claims that find the write lock held.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::SqliteStore;
use axum_idem::testing::{FaultStore, Operation};
use axum_idem::{Idempotency, idempotent};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::support::Server;

#[idempotent(scope = global)]
async fn done(body: String) -> String {
    body
}

/// The store has already waited for `busy_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_finds_the_lock_held_is_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let store = SqliteStore::builder().path(&path).no_sweeper();
    let store = store.busy_timeout(Duration::from_millis(50)).open().await;
    let store = FaultStore::new(store.expect("the file opens"));
    let idem = Idempotency::builder().store(store.clone()).build();
    let router = Router::new().route("/", post(done)).layer(idem);
    let server = Server::start(router).await;

    let other = SqliteConnectOptions::new().filename(&path).connect().await;
    let mut other = other.expect("the file opens");
    let lock = other.begin_with("BEGIN IMMEDIATE").await.expect("locked");
    let refused = server.post("/", "k", "x").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    assert_eq!(store.calls(Operation::Claim), 1);

    lock.rollback().await.expect("unlocked");
    let first = server.post("/", "k", "x").await;
    assert!(
        first.status == StatusCode::OK && !first.is_replay(),
        "{first:?}"
    );
}

/// The first try of a claim has half of `store_timeout`. The defaults leave time for the store's own error, also when a
/// claim arrives just after another began to wait.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_defaults_the_error_of_the_store_arrives_before_a_claim_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let store = SqliteStore::builder().path(&path).no_sweeper().open().await;
    let store = FaultStore::new(store.expect("the file opens"));
    let idem = Idempotency::builder().store(store.clone()).build();
    let router = Router::new().route("/", post(done)).layer(idem);
    let server = Server::start(router).await;

    let other = SqliteConnectOptions::new().filename(&path).connect().await;
    let mut other = other.expect("the file opens");
    let lock = other.begin_with("BEGIN IMMEDIATE").await.expect("locked");
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.post("/", "second", "x").await
    };
    let (first, second) = tokio::join!(server.post("/", "first", "x"), later);
    for refused in [first, second] {
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(store.calls(Operation::Claim), 2);
    lock.rollback().await.expect("unlocked");
}
