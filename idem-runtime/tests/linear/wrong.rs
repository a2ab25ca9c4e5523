//! The checker finds the errors of wrong stores. Otherwise its verdict on the other stores would
//! mean nothing.

use std::sync::Arc;

use idem_runtime::store::{MemoryStore, Store};

use test_support::wrong::{FencesAnew, GetThenSet, Mistake, NoFence, OneTooLong, Wrong};

use crate::history::{Short, run};

/// Far more than needed.
const HISTORIES: u64 = 200;

/// The seed of the first history that exposes the store. One thread and a stopped clock make the
/// history of a seed reproducible.
async fn found(store: Arc<dyn Store>) -> Option<u64> {
    for seed in 0..HISTORIES {
        let history = run(store.clone(), Short::Nothing, seed).await;
        if history.check().is_err() {
            return Some(seed);
        }
    }
    None
}

async fn is_found<F: Mistake + Default>() {
    let store = Wrong::<F>::default();
    let seed = found(Arc::new(store)).await.expect("the store is wrong");
    let again = run(Arc::new(Wrong::<F>::default()), Short::Nothing, seed).await;
    let why = again
        .check()
        .expect_err("a seed always has the same history");
    assert!(why.contains("no sequence of transitions"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_by_get_then_set_is_found() {
    is_found::<GetThenSet>().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_the_fence_is_found() {
    is_found::<NoFence>().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_lasts_past_its_end_is_found() {
    is_found::<OneTooLong>().await;
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_starts_again_is_found() {
    is_found::<FencesAnew>().await;
}

/// The same histories on a correct store.
#[tokio::test(start_paused = true)]
async fn a_correct_store_is_accepted() {
    let found = found(Arc::new(MemoryStore::default())).await;
    assert_eq!(found, None);
}
