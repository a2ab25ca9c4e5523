//! Wrong stores, which the tests must detect.

pub mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, MemoryStore, Owner, Page, Query, Record, Settled, Stats, Store,
    StoreFuture,
};
use idem_runtime::{RecordId, ScopeId};

/// A store with one mistake. Everything else is forwarded to a correct store.
#[derive(Clone, Default)]
pub struct Wrong<F> {
    pub store: MemoryStore,
    pub mistake: F,
}

/// A mistake of a store. The default methods are correct.
pub trait Mistake: Clone + Send + Sync + 'static {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        store.claim(claim)
    }

    /// The holder that the store accepts for a call.
    fn holder(&self, holder: Holder) -> Holder {
        holder
    }

    fn list(&self, store: &MemoryStore, query: Query) -> StoreFuture<Page> {
        store.list(query)
    }

    fn forget_scope(&self, store: &MemoryStore, scope: ScopeId) -> StoreFuture<u64> {
        store.forget_scope(scope)
    }

    fn completed(&self, _id: RecordId, _record: &Record, _ttl: Duration) {}

    /// The lease or `ttl` that the store uses.
    fn time(&self, time: Duration) -> Duration {
        time
    }
}

impl<F: Mistake> Store for Wrong<F> {
    fn claim(&self, mut claim: Claim) -> StoreFuture<Claimed> {
        claim.lease = self.mistake.time(claim.lease);
        self.mistake.claim(&self.store, claim)
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        let lease = self.mistake.time(lease);
        self.store.renew(self.mistake.holder(holder), lease)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.mistake.completed(holder.id, &record, ttl);
        let ttl = self.mistake.time(ttl);
        self.store
            .complete(self.mistake.holder(holder), record, ttl)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.store.release(self.mistake.holder(holder))
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.store.abandon(self.mistake.holder(holder))
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

    fn list(&self, query: Query) -> StoreFuture<Page> {
        self.mistake.list(&self.store, query)
    }

    fn stats(&self) -> StoreFuture<Stats> {
        self.store.stats()
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        self.mistake.forget_scope(&self.store, scope)
    }
}

/// Reads an entry and then writes it, without atomicity.
#[derive(Clone, Default)]
pub struct GetThenSet;

impl Mistake for GetThenSet {
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

/// Settles the current claim of the id, whatever the holder's fence.
#[derive(Clone, Default)]
pub struct NoFence(Arc<Mutex<HashMap<RecordId, Holder>>>);

impl Mistake for NoFence {
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

/// Uses `<=` instead of `<` at the end of a lease and of a `ttl`.
#[derive(Clone, Default)]
pub struct OneTooLong;

impl Mistake for OneTooLong {
    fn time(&self, time: Duration) -> Duration {
        time + Duration::from_nanos(1)
    }
}

/// Restarts its fences when nothing is left of an id: the fence is the attempt number.
#[derive(Clone, Default)]
pub struct FencesAnew(Arc<Mutex<HashMap<(Owner, u64), u64>>>);

impl Mistake for FencesAnew {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        let (fences, owner) = (self.0.clone(), claim.owner);
        store.claim(claim).map(move |claimed| match claimed {
            Claimed::Fresh { fence, attempt } => {
                let anew = u64::from(attempt);
                let mut fences = fences.lock().expect("no panic");
                fences.insert((owner, anew), fence);
                Claimed::Fresh {
                    fence: anew,
                    attempt,
                }
            }
            other => other,
        })
    }

    fn holder(&self, holder: Holder) -> Holder {
        let fences = self.0.lock().expect("no panic");
        let fence = fences.get(&(holder.owner, holder.fence)).copied();
        Holder {
            fence: fence.unwrap_or(holder.fence),
            ..holder
        }
    }
}
