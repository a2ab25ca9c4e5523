//! The contract suite tells stores that are wrong, each by the rule that it breaks.
#![cfg(feature = "testing")]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idem_runtime::RecordId;
use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, MemoryStore, Record, Settled, Store, StoreFuture,
};
use idem_runtime::testing::Contract;

/// A store that does one thing in a wrong way, and all else as the one behind it.
#[derive(Clone, Default)]
struct Wrong<F> {
    store: MemoryStore,
    fault: F,
}

/// What is wrong. Left out, it is right.
trait Fault: Clone + Send + Sync + 'static {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        store.claim(claim)
    }

    /// Whom the store takes for the holder.
    fn holder(&self, holder: Holder) -> Holder {
        holder
    }

    fn completed(&self, _id: RecordId, _record: &Record, _ttl: Duration) {}
}

impl<F: Fault> Store for Wrong<F> {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.fault.claim(&self.store, claim)
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.store.renew(self.fault.holder(holder), lease)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.fault.completed(holder.id, &record, ttl);
        self.store.complete(self.fault.holder(holder), record, ttl)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.store.release(self.fault.holder(holder))
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.store.abandon(self.fault.holder(holder))
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        self.store.look_up(id)
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        self.store.forget(id)
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        self.store.resolve(id, fence, record, ttl)
    }
}

async fn broken_rule(contract: Contract) -> u8 {
    let violation = contract.rounds(20).check().await;
    violation.expect_err("the store is wrong").rule()
}

/// Looks whether there is something, and then sets it.
#[derive(Clone, Default)]
struct GetThenSet;

impl Fault for GetThenSet {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        let store = store.clone();
        StoreFuture::new(async move {
            if store.look_up(claim.id).await?.is_some() {
                return store.claim(claim).await;
            }
            tokio::task::yield_now().await;
            store.forget(claim.id).await?;
            store.claim(claim).await
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_then_set_breaks_rule_1() {
    let store = Wrong::<GetThenSet>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 1);
}

/// Settles whatever claim stands under the id.
#[derive(Clone, Default)]
struct NoFence(Arc<Mutex<HashMap<RecordId, Holder>>>);

impl Fault for NoFence {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        let holders = self.0.clone();
        let (id, owner) = (claim.id, claim.owner);
        store.claim(claim).map(move |claimed| {
            if let Claimed::Fresh { fence, .. } = claimed {
                let holder = Holder { id, owner, fence };
                holders.lock().expect("no panic").insert(id, holder);
            }
            claimed
        })
    }

    fn holder(&self, holder: Holder) -> Holder {
        let holders = self.0.lock().expect("no panic");
        holders.get(&holder.id).copied().unwrap_or(holder)
    }
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

impl Fault for SlidingExpiry {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        let (fault, store) = (self.clone(), store.clone());
        StoreFuture::new(async move {
            let _reading = fault.reading.lock().await;
            let claimed = store.claim(claim.clone()).await?;
            let ttl = fault.ttls.lock().expect("no panic").get(&claim.id).copied();
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

impl Fault for UnreadableIsAMiss {
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
    let damaged = store.fault.0.clone();
    let contract = Contract::of(store).damage_with(move |id| {
        damaged.lock().expect("no panic").insert(id);
        std::future::ready(())
    });
    assert_eq!(broken_rule(contract).await, 6);
}
