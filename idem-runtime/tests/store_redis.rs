//! The contract suite on the Redis store, with a separate server for each test.
#![cfg(all(feature = "redis", feature = "testing"))]

use test_support::servers;

use std::sync::Arc;
use std::time::Duration;

use idem_runtime::store::{NearCache, RedisStore};
use idem_runtime::testing::Contract;

use servers::redis::RedisServer;

async fn connect(server: &RedisServer) -> RedisStore {
    let builder = RedisStore::builder().url(server.url());
    // A test machine may be busy.
    let store = builder.timeout(Duration::from_secs(10)).connect().await;
    store.expect("redis is there")
}

/// Makes an entry unreadable.
fn damaged(contract: Contract, server: &Arc<RedisServer>) -> Contract {
    let server = server.clone();
    contract.damage_with(move |id| {
        server.command(&["SETRANGE", &format!("idem:{id}"), "0", "\u{9}"]);
        std::future::ready(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_every_rule() {
    let server = Arc::new(RedisServer::start());
    let (store, other) = (connect(&server).await, connect(&server).await);
    let contract = Contract::of_two(store, other).rounds(100);
    damaged(contract, &server).assert().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_cache_over_redis_keeps_every_rule() {
    let server = Arc::new(RedisServer::start());
    let contract = Contract::of(NearCache::new(connect(&server).await)).rounds(10);
    damaged(contract, &server).assert().await;
}

/// Two versions of a service, in the second step of a rotation of its sealing keys.
#[cfg(feature = "seal")]
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_in_redis_keeps_every_rule() {
    use idem_runtime::store::{Keys, Sealed};
    let server = Arc::new(RedisServer::start());
    let (before, after) = (connect(&server).await, connect(&server).await);
    let before = Sealed::around(before, Keys::new().primary(1, [1; 32]).also(2, [2; 32]));
    let after = Sealed::around(after, Keys::new().primary(2, [2; 32]).also(1, [1; 32]));
    let contract = Contract::of_two(before, after);
    damaged(contract.rounds(10), &server).assert().await;
}
