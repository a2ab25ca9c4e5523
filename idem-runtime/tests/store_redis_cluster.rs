//! The Redis store on a cluster whose nodes hang, fail over and move slots.
#![cfg(feature = "redis")]

use test_support::listing::listing;
use test_support::servers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use idem_runtime::store::{
    Claimed, Query, RedisStore, RedisStoreBuilder, Store, StoreError, Summary,
};

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

/// The number of keys that two stores raced for, that both won, and that exactly one won.
#[derive(Debug, Default)]
struct Races {
    all: AtomicUsize,
    won_twice: AtomicUsize,
    won: AtomicUsize,
}

/// Claims one key after another through both stores at the same time, until `stop` is set.
async fn race(stores: [RedisStore; 2], races: Arc<Races>, stop: Arc<AtomicBool>) {
    let [one, two] = &stores;
    while !stop.load(Ordering::SeqCst) {
        let name = format!("contested {}", races.all.fetch_add(1, Ordering::SeqCst));
        let (one, two) = tokio::join!(one.claim(claim(&name)), two.claim(claim(&name)));
        let won = [one, two].map(|it| matches!(it, Ok(Claimed::Fresh { .. })));
        if won == [true, true] {
            races.won_twice.fetch_add(1, Ordering::SeqCst);
        }
        if won != [false, false] {
            races.won.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A node that hangs still accepts connections, like a node behind a broken network.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_primary_is_replaced_by_its_promoted_replica() {
    let nodes = cluster_with_replicas(1);
    // The hash tag keeps all keys in one slot.
    let connect = async || {
        let store = builder(&nodes).prefix("{trades}").connect().await;
        store.expect("the cluster is there")
    };
    let stores = [connect().await, connect().await];
    complete(&stores[0], "before").await;
    let hung = serving(&nodes, "{trades}");
    let [replica] = replicas_of(&nodes, hung)[..] else {
        panic!("the primary has one replica");
    };
    eventually("replication", || {
        (replica.command(&["DBSIZE"]) == "1").then_some(())
    });
    let (races, stop) = (Arc::<Races>::default(), Arc::<AtomicBool>::default());
    let racing = tokio::spawn(race(stores.clone(), races.clone(), stop.clone()));
    let reach = async |count: usize| {
        let goal = races.won.load(Ordering::SeqCst) + count;
        eventually_async("more races", async || {
            (races.won.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    };

    reach(50).await;
    hung.stall();
    eventually("the promotion", || {
        (replica.info("role")? == "master").then_some(())
    });
    // The promoted replica serves both stores.
    for store in &stores {
        eventually_async("the promoted replica", async || {
            let replayed = store.claim(claim("before")).await;
            matches!(replayed, Ok(Claimed::Recorded { .. })).then_some(())
        })
        .await;
    }
    let new_process = connect().await;
    replay(&new_process, "before").await;

    // The old primary continues, and for a moment believes that it is still the primary.
    hung.go_on();
    reach(300).await;
    eventually("the old primary's demotion", || {
        (hung.info("role")? == "slave").then_some(())
    });
    reach(50).await;
    stop.store(true, Ordering::SeqCst);
    racing.await.expect("no panic");
    assert_eq!(races.won_twice.load(Ordering::SeqCst), 0, "{races:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_a_claim_needs_the_replica_of_its_node() {
    let nodes = cluster_with_replicas(1);
    let builder = builder(&nodes).timeout(Duration::from_secs(10));
    let store = builder.min_replicas(1, Duration::from_millis(500));
    let store = store.connect().await.expect("the cluster is there");
    complete(&store, "before").await;
    let primary = serving(&nodes, &stored("stalled"));
    let [replica] = replicas_of(&nodes, primary)[..] else {
        panic!("the primary has one replica");
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
        panic!("the primary has one replica");
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

/// While a slot moves, each node serves a part of the slot.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_follows_a_moving_slot() {
    let nodes = cluster();
    let store = connect(&nodes).await;
    let from = serving(&nodes, &stored("k"));
    let slot = from.command(&["CLUSTER", "KEYSLOT", &stored("k")]);
    let to = nodes.iter().find(|node| node.port != from.port);
    let to = to.expect("there are three nodes");
    let [from_id, to_id] = [from, to].map(|node| node.command(&["CLUSTER", "MYID"]));
    to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);

    // The key is new, so it belongs to the node that receives the slot.
    complete(&store, "k").await;
    assert_eq!(from.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "0");
    assert_eq!(to.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "1");
    for node in [to, from] {
        node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    replay(&store, "k").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_the_records_of_every_primary() {
    let nodes = cluster();
    let store = connect(&nodes).await;
    let names: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    for name in &names {
        complete(&store, name).await;
    }
    for node in &nodes {
        assert_ne!(node.command(&["DBSIZE"]), "0", "every node has records");
    }
    let listed: BTreeSet<_> = listing(&store).await.into_keys().collect();
    assert_eq!(listed, names.iter().map(|name| id(name)).collect());
    let stats = store.stats().await.expect("the cluster is there");
    assert_eq!(stats.recorded.value, 30);
    let scope = id("0").scope_id();
    let forgotten = store.forget_scope(scope).await;
    assert_eq!(forgotten.expect("the cluster is there"), 30);
    assert!(listing(&store).await.is_empty());
}

/// A page ends in the second primary. Then a slot of the first primary moves to the third, whose first range is now behind the
/// listing. Without a check, the listing would skip the third primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_ends_with_an_error_after_a_slot_has_moved() {
    let nodes = cluster();
    let [first, second, third] = &nodes[..] else {
        panic!("there are three nodes");
    };
    let store = connect(&nodes).await;
    let names: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    for name in &names {
        complete(&store, name).await;
    }
    let is_in_second = |entry: &Summary| {
        let key = format!("idem:{}", entry.id);
        serving(&nodes, &key).port == second.port
    };
    let mut query = Query::all().limit(1);
    loop {
        let page = store.list(query.clone()).await;
        let page = page.expect("the cluster is there");
        query = query.after(page.next.expect("more pages"));
        if page.entries.iter().any(is_in_second) {
            break;
        }
    }

    let is_empty = |slot: &u16| {
        let count = ["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()];
        first.command(&count) == "0"
    };
    let slot = (0..100).find(is_empty).expect("an empty slot").to_string();
    let third_id = third.command(&["CLUSTER", "MYID"]);
    for node in [third, first, second] {
        node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &third_id]);
    }
    // The page of an operator may come from any process.
    let store = connect(&nodes).await;
    let listed = store.list(query).await;
    assert!(
        matches!(listed, Err(StoreError::InvalidCursor)),
        "{listed:?}"
    );
    assert_eq!(listing(&store).await.len(), names.len());
}

/// The store needs `ASKING` to follow a slot that moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_to_asking_is_reported_at_connect() {
    let nodes = cluster();
    let allow = |asking| {
        let rights = "+evalsha +eval +get +set +pttl +pexpire +del +time +info +cluster|slots \
             +cluster|info";
        for node in &nodes {
            let mut command = vec![
                "ACL", "SETUSER", "desk", "reset", "on", ">secret", "~idem:*",
            ];
            command.extend(rights.split_whitespace());
            command.push(asking);
            assert_eq!(node.command(&command), "OK");
        }
    };
    let builder = || builder(&nodes).username("desk").password("secret");
    allow("-asking");
    let error = builder()
        .connect()
        .await
        .expect_err("the user lacks a right");
    assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
    assert!(error.to_string().contains("refuses `ASKING`"), "{error}");
    allow("+asking");
    builder().connect().await.expect("the user has every right");
}
