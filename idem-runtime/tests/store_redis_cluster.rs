//! The Redis store on a cluster whose nodes hang, fail over and pass slots on.
#![cfg(feature = "redis")]

use test_support::servers;

use std::sync::Arc;
use std::time::Duration;

use idem_runtime::store::{Claimed, RedisStore, RedisStoreBuilder, Store, StoreError};
use tokio::sync::Barrier;

use servers::asking::{claim, complete, id, replay, win};
use servers::redis::{RedisServer, cluster, cluster_with_replicas, replicas_of, serving};
use servers::{eventually, eventually_async};

fn builder(nodes: &[RedisServer]) -> RedisStoreBuilder {
    RedisStore::builder().cluster(nodes.iter().map(RedisServer::url))
}

async fn connect(nodes: &[RedisServer]) -> RedisStore {
    let store = builder(nodes).connect().await;
    store.expect("the cluster is there")
}

fn stored(name: &str) -> String {
    format!("idem:{}", id(name))
}

/// Names whose keys this node serves.
fn names(node: &RedisServer, what: &str, count: usize) -> Vec<String> {
    let names = (0..).map(|n| format!("{what}{n}"));
    let is_served = |name: &String| !node.command(&["GET", &stored(name)]).contains("MOVED");
    names.filter(is_served).take(count).collect()
}

/// A node that hangs accepts connections, as one behind a broken network does for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_is_left_once_its_replica_is_promoted() {
    let nodes = cluster_with_replicas(1);
    let (one, two) = (connect(&nodes).await, connect(&nodes).await);
    complete(&one, "before").await;
    let hung = serving(&nodes, &stored("before"));
    let [replica] = replicas_of(&nodes, hung)[..] else {
        panic!("it has one replica");
    };
    eventually("replication", || {
        (replica.command(&["DBSIZE"]) == "1").then_some(())
    });
    let contested = names(hung, "contested", 400);

    hung.stall();
    eventually("the promotion", || {
        (replica.info("role")? == "master").then_some(())
    });
    for store in [&one, &two] {
        eventually_async("the promoted replica", async || {
            let replayed = store.claim(claim("before")).await;
            matches!(replayed, Ok(Claimed::Recorded { .. })).then_some(())
        })
        .await;
    }
    let new_process = connect(&nodes).await;
    replay(&new_process, "before").await;

    // It is back, and for a moment still takes itself for the primary.
    let barrier = Arc::new(Barrier::new(2));
    let claims = [one, two].map(|store| {
        let (barrier, contested) = (barrier.clone(), contested.clone());
        tokio::spawn(async move {
            let mut fresh = Vec::new();
            for name in &contested {
                barrier.wait().await;
                let claimed = store.claim(claim(name)).await;
                fresh.push(matches!(claimed, Ok(Claimed::Fresh { .. })));
            }
            fresh
        })
    });
    hung.go_on();
    let [one, two] = claims;
    let (one, two) = (one.await.expect("no panic"), two.await.expect("no panic"));
    let both = one.iter().zip(&two).filter(|(one, two)| **one && **two);
    assert_eq!(both.count(), 0, "two claimers won the same key");
    let won = one.iter().zip(&two).filter(|(one, two)| **one || **two);
    assert_eq!(won.count(), contested.len(), "every key was served");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_a_claim_counts_when_the_replica_of_its_node_has_it() {
    let nodes = cluster_with_replicas(1);
    let builder = builder(&nodes).timeout(Duration::from_secs(10));
    let store = builder.min_replicas(1, Duration::from_millis(500));
    let store = store.connect().await.expect("the cluster is there");
    complete(&store, "before").await;
    let primary = serving(&nodes, &stored("stalled"));
    let [replica] = replicas_of(&nodes, primary)[..] else {
        panic!("it has one replica");
    };
    replica.stall();
    let claimed = store.claim(claim("stalled")).await;
    assert!(
        matches!(claimed, Err(StoreError::Unavailable(_))),
        "{claimed:?}"
    );
    replica.go_on();
    win(&store, claim("other")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_evicts_is_refused_before_and_after_it_is_promoted() {
    let nodes = cluster_with_replicas(1);
    let store = connect(&nodes).await;
    complete(&store, "before").await;
    let primary = serving(&nodes, &stored("before"));
    let [replica] = replicas_of(&nodes, primary)[..] else {
        panic!("it has one replica");
    };
    replica.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let error = builder(&nodes)
        .connect()
        .await
        .expect_err("a replica evicts");
    assert!(error.to_string().contains("allkeys-lru"), "{error}");

    replica.command(&["CLUSTER", "FAILOVER"]);
    eventually("the promotion", || {
        (replica.info("role")? == "master").then_some(())
    });
    eventually_async("the refusal", async || {
        match store.claim(claim("before")).await {
            Err(StoreError::Unfit(why)) => Some(why),
            _ => None,
        }
    })
    .await;
}

/// While a slot moves, both nodes serve a part of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_is_followed() {
    let nodes = cluster();
    let store = connect(&nodes).await;
    let from = serving(&nodes, &stored("k"));
    let slot = from.command(&["CLUSTER", "KEYSLOT", &stored("k")]);
    let to = nodes.iter().find(|node| node.port != from.port);
    let to = to.expect("there are three");
    let [from_id, to_id] = [from, to].map(|node| node.command(&["CLUSTER", "MYID"]));
    to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);

    // The key is new, so it belongs to the node that the slot moves to.
    complete(&store, "k").await;
    assert_eq!(from.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "0");
    assert_eq!(to.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "1");
    for node in [to, from] {
        node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    replay(&store, "k").await;
}
