//! The Redis store behind Sentinels that hang, disagree or are outdated.
#![cfg(feature = "redis")]

use test_support::servers;

use std::time::Duration;

use idem_runtime::store::{Claimed, RedisStore, Store, StoreError};

use servers::asking::{claim, complete, replay, win};
use servers::redis::{RedisServer, Sentinel};
use servers::{eventually, eventually_async};

/// A primary and its replica.
fn pair() -> (RedisServer, RedisServer) {
    let primary = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let port = primary.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    eventually("replication", || {
        (replica.info("master_link_status")? == "up").then_some(())
    });
    (primary, replica)
}

/// The primary and the first Sentinel in the list hang together, as on one machine. Uses the
/// default timeout of one second.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_follows_a_failover_while_a_sentinel_hangs() {
    let (primary, replica) = pair();
    let sentinels = Sentinel::three_watching(&primary);
    let builder = || RedisStore::builder().sentinel("trades", sentinels.iter().map(Sentinel::url));
    let store = builder().connect().await.expect("the primary is there");
    complete(&store, "before").await;
    eventually("replication", || {
        (replica.command(&["DBSIZE"]) == "1").then_some(())
    });

    sentinels[0].stall();
    primary.stall();
    let port = replica.port.to_string();
    eventually("the failover", || {
        (sentinels[1].says("port") == port).then_some(())
    });
    eventually_async("the new primary", async || {
        matches!(
            store.claim(claim("before")).await,
            Ok(Claimed::Recorded { .. })
        )
        .then_some(())
    })
    .await;
    win(&store, claim("after")).await;

    let new_process = builder().connect().await;
    let new_process = new_process.expect("two Sentinels know the new primary");
    replay(&new_process, "before").await;

    // The old primary continues, and does not know yet that it was replaced.
    primary.go_on();
    win(&store, claim("back")).await;
    let duplicate = new_process.claim(claim("back")).await;
    assert!(
        matches!(duplicate, Ok(Claimed::InFlight { .. })),
        "{duplicate:?}"
    );
}

#[tokio::test]
async fn useless_sentinels_have_a_clear_message() {
    let refused = RedisStore::builder().sentinel("trades", ["redis://127.0.0.1:1/"]);
    let error = refused.connect().await.expect_err("nobody listens there");
    assert!(error.to_string().contains("refuses connections"), "{error}");

    let primary = RedisServer::start();
    let sentinel = Sentinel::watching(&primary);
    let unknown = RedisStore::builder().sentinel("orders", [sentinel.url()]);
    let error = unknown
        .connect()
        .await
        .expect_err("the Sentinel watches only `trades`");
    assert!(error.to_string().contains("`orders`"), "{error}");

    let none = RedisStore::builder().sentinel("trades", [""; 0]);
    let error = none.connect().await.expect_err("there is no address");
    assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
}

/// The replica would evict entries after its promotion.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_evicts_is_refused_before_it_is_promoted() {
    let (primary, replica) = pair();
    replica.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let sentinel = Sentinel::watching(&primary);
    eventually("the replica", || {
        (sentinel.says("num-slaves") == "1").then_some(())
    });
    let builder = RedisStore::builder().sentinel("trades", [sentinel.url()]);
    let error = builder.connect().await.expect_err("its replica evicts");
    assert!(error.to_string().contains("allkeys-lru"), "{error}");
}

/// The old primary is cut off from its replica and from the Sentinel, but not from its clients.
async fn is_left_for_the_new_primary(refuses_writes: bool) {
    let (old, old_replica) = pair();
    let (new, _new_replica) = pair();
    let sentinel = Sentinel::watching(&old);
    let store = RedisStore::builder()
        .sentinel("trades", [sentinel.url()])
        .min_replicas(1, Duration::from_millis(100))
        .connect()
        .await
        .expect("the primary is there");
    eventually_async("a claim that the replica has", async || {
        store.claim(claim("before")).await.ok()
    })
    .await;
    // The old primary stays a primary, and its connections stay open.
    old_replica.command(&["REPLICAOF", "NO", "ONE"]);
    if refuses_writes {
        old.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    }
    sentinel.watch_instead(&new);
    eventually_async("a claim at the new primary", async || {
        let _ = store.claim(claim("after")).await;
        (new.command(&["DBSIZE"]) != "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_acknowledging_replicas_is_replaced() {
    is_left_for_the_new_primary(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_refuses_writes_is_replaced() {
    is_left_for_the_new_primary(true).await;
}
