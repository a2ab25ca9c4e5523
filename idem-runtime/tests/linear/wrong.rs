//! The checker finds what is wrong with stores that are: otherwise its word on the others is worth
//! nothing.

use std::sync::Arc;

use idem_runtime::store::{MemoryStore, Store};

use test_support::wrong::{FencesAnew, GetThenSet, Mistake, NoFence, OneTooLong, Wrong};

use crate::history::{Short, run};

/// More than it takes by far.
const HISTORIES: u64 = 200;

/// The first history that gives a store away. One thread and a clock that stands still, so that a
/// seed is always the same history.
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
        .expect_err("a seed is always the same history");
    assert!(why.contains("no sequence of transitions"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_by_get_then_set_is_found() {
    is_found::<GetThenSet>().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_looks_at_no_fence_is_found() {
    is_found::<NoFence>().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_holds_at_its_end_is_found() {
    is_found::<OneTooLong>().await;
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_begins_anew_is_found() {
    is_found::<FencesAnew>().await;
}

/// The same histories on a store that is right.
#[tokio::test(start_paused = true)]
async fn a_right_store_is_not_found() {
    let found = found(Arc::new(MemoryStore::default())).await;
    assert_eq!(found, None);
}
