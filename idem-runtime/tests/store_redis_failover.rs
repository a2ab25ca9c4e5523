//! What the loss of a Redis primary can take along, with and without waiting for replicas.
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

/// A primary and its replicas, which have all that it has.
async fn with_replicas<const N: usize>() -> (RedisServer, [RedisServer; N]) {
    // Replicas are served at once.
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
    // Nobody listens there.
    replica.command(&["REPLICAOF", "127.0.0.1", "1"]);
}

/// The replica that Sentinel, or an operator, chooses.
async fn promoted(replica: &RedisServer) -> RedisStore {
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    connect(replica, 0).await
}

/// The window: a claim is acknowledged by the primary alone, and a second run of the same key is let
/// in by a replica that never heard of it.
#[tokio::test]
async fn a_claim_that_no_replica_has_is_lost_with_its_primary() {
    let (mut primary, [replica]) = with_replicas().await;
    let store = connect(&primary, 0).await;
    cut_off(&replica);
    win(&store, claim("k")).await;
    primary.kill();
    let successor = promoted(&replica).await;
    let claimed = successor.claim(claim("k")).await;
    assert!(matches!(claimed, Ok(Claimed::Fresh { .. })), "{claimed:?}");
}

/// With `min_replicas` such a claim is never acknowledged, so that the first run does not begin.
#[tokio::test]
async fn a_claim_that_waits_for_its_replica_is_not_acknowledged_without_it() {
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
    // The only run of this key.
    win(&successor, claim("lost")).await;
    // All that was acknowledged is there.
    let replay = successor.claim(claim("kept")).await;
    assert!(matches!(replay, Ok(Claimed::Recorded { .. })), "{replay:?}");
    let duplicate = successor.claim(claim("held")).await;
    assert!(
        matches!(duplicate, Ok(Claimed::InFlight { .. })),
        "{duplicate:?}"
    );
}

/// What is left of the window: of two replicas one has acknowledged, and the other is promoted.
#[tokio::test]
async fn a_promotion_of_a_replica_that_lags_behind_loses_what_another_acknowledged() {
    let (mut primary, [current, lagging]) = with_replicas().await;
    cut_off(&lagging);
    let store = connect(&primary, 1).await;
    win(&store, claim("k")).await;
    primary.kill();
    let successor = promoted(&lagging).await;
    win(&successor, claim("k")).await;
    // The one that had it would have told.
    let successor = promoted(&current).await;
    let duplicate = successor.claim(claim("k")).await;
    assert!(
        matches!(duplicate, Ok(Claimed::InFlight { .. })),
        "{duplicate:?}"
    );
}
