//! The contract suite on the in-memory store and on the store of the guide.
#![cfg(feature = "testing")]

// The example imports the name of the facade, as its readers do.
extern crate idem_runtime as axum_idem;

#[allow(dead_code, reason = "`main` is for the readers of the guide")]
#[path = "../examples/own_store.rs"]
mod own_store;

use std::time::Duration;

use idem_runtime::store::{MemoryStore, NearCache};
use idem_runtime::testing::Contract;

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_every_rule() {
    let store = MemoryStore::default();
    let contract = Contract::of_two(store.clone(), store);
    contract.rounds(200).assert().await;
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_every_rule_with_a_paused_clock() {
    Contract::of(MemoryStore::default())
        .tick(Duration::from_secs(60))
        .rounds(5)
        .assert()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_cache_over_memory_keeps_every_rule() {
    let store = NearCache::new(MemoryStore::default());
    Contract::of(store).rounds(200).assert().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_the_guide_keeps_every_rule() {
    let store = own_store::TableStore::default();
    Contract::of(store).rounds(200).assert().await;
}
