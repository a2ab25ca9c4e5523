//! One or two handles of the store under test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::{
    Claim, Claimed, Entry, Finding, Holder, Page, Query, Record, Settled, Stats, Store, StoreFuture,
};

/// The handles of the store under test: the same handle twice, or two handles.
pub(super) struct Handles {
    pub(super) first: Arc<dyn Store>,
    pub(super) second: Arc<dyn Store>,
    are_two: bool,
}

impl Handles {
    pub(super) fn one(store: Arc<dyn Store>) -> Self {
        Self {
            first: store.clone(),
            second: store,
            are_two: false,
        }
    }

    pub(super) fn two(first: Arc<dyn Store>, second: Arc<dyn Store>) -> Self {
        Self {
            first,
            second,
            are_two: true,
        }
    }

    pub(super) fn are_two(&self) -> bool {
        self.are_two
    }

    /// A store whose calls alternate between the handles.
    pub(super) fn either(&self) -> Arc<dyn Store> {
        if self.are_two {
            Arc::new(Either {
                handles: [self.first.clone(), self.second.clone()],
                calls: AtomicU64::new(0),
            })
        } else {
            self.first.clone()
        }
    }
}

struct Either {
    handles: [Arc<dyn Store>; 2],
    calls: AtomicU64,
}

impl Either {
    /// The handle for the next call. The Thue-Morse sequence chooses it, so that two consecutive
    /// calls use every combination of handles, which simple alternation would not.
    fn next(&self) -> &dyn Store {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let is_second = call.count_ones() % 2 == 1;
        &*self.handles[usize::from(is_second)]
    }
}

impl Store for Either {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.next().claim(claim)
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.next().renew(holder, lease)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.next().complete(holder, record, ttl)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.next().release(holder)
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.next().abandon(holder)
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        self.next().look_up(id)
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        self.next().forget(id)
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        self.next().resolve(id, fence, record, ttl)
    }

    fn list(&self, query: Query) -> StoreFuture<Page> {
        self.next().list(query)
    }

    fn stats(&self) -> StoreFuture<Stats> {
        self.next().stats()
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        self.next().forget_scope(scope)
    }

    fn remove_expired(&self) -> StoreFuture<u64> {
        self.next().remove_expired()
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        self.next().diagnose()
    }
}
