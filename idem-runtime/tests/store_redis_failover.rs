//! What the loss of a Redis primary can lose, with and without waiting for replicas.
#![cfg(feature = "redis")]

use test_support::servers;

use std::time::Duration;

use idem_runtime::store::{Claimed, RedisStore, Settled, Store};

use servers::asking::{HOUR, claim, record, win};
use servers::eventually_async;
use servers::redis::RedisServer;

async fn connect(server: &RedisServer, min_replicas: usize) -> RedisStore {
    let builder = RedisStore::builder().url(server.url());
    let builder = builder.timeout(Duration::from_secs(10));
    let store = if min_replicas > 0 {
        let wait = Duration::from_secs(2);
        builder.min_replicas(min_replicas, wait).connect().await
    } else {
        builder.connect().await
    };
    store.expect("redis is there")
}

/// A primary and its replicas, which have all of its data.
async fn with_replicas<const N: usize>() -> (RedisServer, [RedisServer; N]) {
    // Starts replication without a delay.
    let primary = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let port = primary.port.to_string();
    let replicas = std::array::from_fn(|_| RedisServer::with(&["--replicaof", "127.0.0.1", &port]));
    let count = N.to_string();
    eventually_async("the replicas", async || {
        (primary.command(&["WAIT", &count, "50"]) == count).then_some(())
    })
    .await;
    (primary, replicas)
}

/// Cuts a replica off from its primary.
fn cut_off(replica: &RedisServer) {
    // No server listens there.
    replica.command(&["REPLICAOF", "127.0.0.1", "1"]);
}

/// Promotes a replica, as Sentinel or an operator would.
async fn promoted(replica: &RedisServer) -> RedisStore {
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    connect(replica, 0).await
}

/// The risk without `min_replicas`: only the primary has acknowledged the claim, and a replica that
/// never received the claim allows a second run for the same key.
#[tokio::test]
async fn a_claim_without_a_replica_is_lost_with_its_primary() {
    let (mut primary, [replica]) = with_replicas().await;
    let store = connect(&primary, 0).await;
    cut_off(&replica);
    win(&store, claim("k")).await;
    primary.kill();
    let successor = promoted(&replica).await;
    let claimed = successor.claim(claim("k")).await;
    assert!(matches!(claimed, Ok(Claimed::Fresh { .. })), "{claimed:?}");
}

/// With `min_replicas` such a claim is never acknowledged, so the first run does not start.
#[tokio::test]
async fn a_claim_that_needs_a_replica_is_not_acknowledged_without_it() {
    let (mut primary, [replica]) = with_replicas().await;
    let store = connect(&primary, 1).await;
    let kept = win(&store, claim("kept")).await;
    let completed = store.complete(kept, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("the replica has it"), Settled::Done);
    let held = claim("held");
    win(&store, held.clone()).await;

    cut_off(&replica);
    let unacknowledged = store.claim(claim("lost")).await;
    assert!(unacknowledged.is_err(), "{unacknowledged:?}");
    primary.kill();
    let successor = promoted(&replica).await;
    // This is the only run for this key.
    win(&successor, claim("lost")).await;
    // Every acknowledged write is there.
    let replay = successor.claim(claim("kept")).await;
    assert!(matches!(replay, Ok(Claimed::Recorded { .. })), "{replay:?}");
    let duplicate = successor.claim(claim("held")).await;
    assert!(
        matches!(duplicate, Ok(Claimed::InFlight { .. })),
        "{duplicate:?}"
    );
}

/// The remaining risk: one of two replicas has acknowledged, and the other is promoted.
#[tokio::test]
async fn promoting_a_lagging_replica_loses_acknowledged_claims() {
    let (mut primary, [current, lagging]) = with_replicas().await;
    cut_off(&lagging);
    let store = connect(&primary, 1).await;
    win(&store, claim("k")).await;
    primary.kill();
    let successor = promoted(&lagging).await;
    win(&successor, claim("k")).await;
    // The other replica has the claim.
    let successor = promoted(&current).await;
    let duplicate = successor.claim(claim("k")).await;
    assert!(
        matches!(duplicate, Ok(Claimed::InFlight { .. })),
        "{duplicate:?}"
    );
}
