//! The contract suite tells stores that are wrong, each by the rule that it breaks.
#![cfg(feature = "testing")]

use test_support::wrong;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idem_runtime::RecordId;
use idem_runtime::store::{Claim, Claimed, Holder, MemoryStore, Record, Store, StoreFuture};
use idem_runtime::testing::Contract;

use wrong::{GetThenSet, Mistake, NoFence, Wrong};

async fn broken_rule(contract: Contract) -> u8 {
    let violation = contract.rounds(20).check().await;
    violation.expect_err("the store is wrong").rule()
}

#[tokio::test(flavor = "multi_thread")]
async fn get_then_set_breaks_rule_1() {
    let store = Wrong::<GetThenSet>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fence_breaks_rule_2() {
    let store = Wrong::<NoFence>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 2);
}

/// Begins a record's `ttl` anew whenever it is read.
#[derive(Clone, Default)]
struct SlidingExpiry {
    ttls: Arc<Mutex<HashMap<RecordId, Duration>>>,
    // Nobody sees how it is done.
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl Mistake for SlidingExpiry {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        let (mistake, store) = (self.clone(), store.clone());
        StoreFuture::new(async move {
            let _reading = mistake.reading.lock().await;
            let claimed = store.claim(claim.clone()).await?;
            let ttl = mistake
                .ttls
                .lock()
                .expect("no panic")
                .get(&claim.id)
                .copied();
            if let (Claimed::Recorded { record, .. }, Some(ttl)) = (&claimed, ttl) {
                let (id, owner) = (claim.id, claim.owner);
                store.forget(id).await?;
                if let Claimed::Fresh { fence, .. } = store.claim(claim).await? {
                    let holder = Holder { id, owner, fence };
                    let _ = store.complete(holder, record.clone(), ttl).await?;
                }
            }
            Ok(claimed)
        })
    }

    fn completed(&self, id: RecordId, _record: &Record, ttl: Duration) {
        let mut ttls = self.ttls.lock().expect("no panic");
        ttls.entry(id).or_insert(ttl);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sliding_expiry_breaks_rule_4() {
    let store = Wrong::<SlidingExpiry>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 4);
}

/// Takes what it cannot read for nothing.
#[derive(Clone, Default)]
struct UnreadableIsAMiss(Arc<Mutex<HashSet<RecordId>>>);

impl Mistake for UnreadableIsAMiss {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        let is_damaged = self.0.lock().expect("no panic").remove(&claim.id);
        let store = store.clone();
        StoreFuture::new(async move {
            if is_damaged {
                store.forget(claim.id).await?;
            }
            store.claim(claim).await
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_as_a_miss_breaks_rule_6() {
    let store = Wrong::<UnreadableIsAMiss>::default();
    let damaged = store.mistake.0.clone();
    let contract = Contract::of(store).damage_with(move |id| {
        damaged.lock().expect("no panic").insert(id);
        std::future::ready(())
    });
    assert_eq!(broken_rule(contract).await, 6);
}
