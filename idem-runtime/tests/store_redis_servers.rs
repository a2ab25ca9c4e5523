//! The Redis store when servers stall, restart or fail over, or when there are many.
#![cfg(all(feature = "redis", feature = "testing"))]

use test_support::servers;

use std::time::{Duration, Instant};

use idem_runtime::store::{Claimed, Holder, RedisStore, Settled, Store, StoreError};
use idem_runtime::testing::Contract;

use servers::asking::{HOUR, claim, record, replay, win};
use servers::eventually_async;
use servers::redis::{RedisServer, Sentinel, cluster};

async fn connect(server: &RedisServer) -> RedisStore {
    let builder = RedisStore::builder().url(server.url());
    // A test machine may be busy.
    let store = builder.timeout(Duration::from_secs(10)).connect().await;
    store.expect("redis is there")
}

#[tokio::test]
async fn a_claim_needs_its_replica() {
    let primary = RedisServer::start();
    let port = primary.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    eventually_async("the replica", async || {
        let state = primary.info("slave0")?;
        state.contains("state=online").then_some(())
    })
    .await;
    let store = RedisStore::builder()
        .url(primary.url())
        .timeout(Duration::from_secs(10))
        .min_replicas(1, Duration::from_millis(200))
        .connect()
        .await
        .expect("redis is there");
    let first = claim("acknowledged");
    let (id, owner) = (first.id, first.owner);
    let acknowledged = eventually_async("an acknowledgement", async || {
        match store.claim(first.clone()).await {
            Ok(Claimed::Fresh { fence, .. }) => Some(Holder { id, owner, fence }),
            _ => None,
        }
    })
    .await;

    replica.stall();
    let stalled = claim("stalled");
    for _ in 0..2 {
        // Also when the claim is repeated on another connection.
        let claimed = store.claim(stalled.clone()).await;
        assert!(claimed.is_err(), "{claimed:?}");
    }
    let completed = store.complete(acknowledged, record(b"{}"), HOUR).await;
    assert!(completed.is_err(), "{completed:?}");

    replica.go_on();
    win(&store, stalled).await;
    let completed = store.complete(acknowledged, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("the replica is back"), Settled::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_every_rule() {
    let nodes = cluster();
    let store = RedisStore::builder()
        .cluster(nodes.iter().map(RedisServer::url))
        .timeout(Duration::from_secs(10))
        .connect()
        .await
        .expect("the cluster is there");
    Contract::of(store).rounds(10).assert().await;
    for node in &nodes {
        assert_ne!(node.command(&["DBSIZE"]), "0", "every node has some keys");
    }
}

#[tokio::test]
async fn a_cluster_that_evicts_is_refused() {
    let nodes = cluster();
    nodes[2].command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let builder = RedisStore::builder().cluster(nodes.iter().map(RedisServer::url));
    let error = builder.connect().await.expect_err("one node evicts");
    assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
}

#[tokio::test]
async fn the_store_follows_sentinel_to_the_new_primary() {
    let mut primary = RedisServer::start();
    let port = primary.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let sentinel = Sentinel::watching(&primary);
    eventually_async("the replica", async || {
        (sentinel.says("num-slaves") == "1").then_some(())
    })
    .await;
    let store = RedisStore::builder()
        .sentinel("trades", [sentinel.url()])
        .timeout(Duration::from_secs(10))
        .connect()
        .await
        .expect("the primary is there");
    let holder = win(&store, claim("k")).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    eventually_async("replication", async || {
        (replica.command(&["DBSIZE"]) == "1").then_some(())
    })
    .await;

    primary.kill();
    let replayed = eventually_async("the failover", async || {
        match store.claim(claim("k")).await {
            Ok(Claimed::Recorded { record, .. }) => Some(record),
            Ok(other) => panic!("the replica had the record: {other:?}"),
            Err(_) => None,
        }
    })
    .await;
    assert_eq!(replayed, record(b"{}"));
    // The new primary also accepts writes.
    eventually_async("the new primary", async || {
        store.claim(claim("new")).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_restart_replays_from_the_append_only_file() {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = connect(&server).await;
    let done = win(&store, claim("done")).await;
    let completed = store.complete(done, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    let held = win(&store, claim("held")).await;

    server.kill();
    let error = store.claim(claim("new")).await.expect_err("redis is gone");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");

    server.start_again();
    assert_eq!(replay(&store, "done").await, record(b"{}"));
    let duplicate = store.claim(claim("held")).await;
    assert!(matches!(duplicate, Ok(Claimed::InFlight { .. })));
    let completed = store.complete(held, record(b"late"), HOUR).await;
    assert_eq!(completed.expect("redis is back"), Settled::Done);
    // Another process sees the same state.
    assert_eq!(
        replay(&connect(&server).await, "held").await,
        record(b"late")
    );
}

#[tokio::test]
async fn a_restart_between_two_requests_is_not_noticed() {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = connect(&server).await;
    let holder = win(&store, claim("k")).await;
    server.kill();
    server.start_again();
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is back"), Settled::Done);
}

#[tokio::test]
async fn a_hanging_server_times_out_and_is_used_again_later() {
    let server = RedisServer::start();
    let builder = RedisStore::builder().url(server.url());
    let store = builder.timeout(Duration::from_secs(1)).connect().await;
    let store = store.expect("redis is there");
    server.stall();
    let lost = claim("k");
    let asked_at = Instant::now();
    let error = store.claim(lost.clone()).await.expect_err("redis hangs");
    assert!(matches!(error, StoreError::TimedOut), "{error:?}");
    assert!(asked_at.elapsed() >= Duration::from_secs(1));

    server.go_on();
    // The server had received the claim whose reply was lost, and the owner of that claim wins.
    let holder = eventually_async("a response", async || {
        match store.claim(lost.clone()).await {
            Ok(Claimed::Fresh { fence, .. }) => Some(Holder {
                id: lost.id,
                owner: lost.owner,
                fence,
            }),
            Ok(other) => panic!("its own claim: {other:?}"),
            Err(_) => None,
        }
    })
    .await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is back"), Settled::Done);
}
