//! A pointer to a store is a store, so that configuration can choose one.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Claim, Claimed, CommitState, Entry, Finding, Holder, Page, Query, Record, RecordStatement,
    Settled, Stats, Store, StoreError, StoreFuture, TransactionKind,
};
use crate::observe::Observer;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;

macro_rules! forward {
    ($pointer:ident) => {
        impl<S: Store + ?Sized> Store for $pointer<S> {
            fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
                (**self).claim(claim)
            }

            fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
                (**self).renew(holder, lease)
            }

            fn complete(
                &self,
                holder: Holder,
                record: Record,
                ttl: Duration,
            ) -> StoreFuture<Settled> {
                (**self).complete(holder, record, ttl)
            }

            fn release(&self, holder: Holder) -> StoreFuture<Settled> {
                (**self).release(holder)
            }

            fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
                (**self).abandon(holder)
            }

            fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
                (**self).look_up(id)
            }

            fn forget(&self, id: RecordId) -> StoreFuture<bool> {
                (**self).forget(id)
            }

            fn resolve(
                &self,
                id: RecordId,
                fence: u64,
                record: Record,
                ttl: Duration,
            ) -> StoreFuture<Settled> {
                (**self).resolve(id, fence, record, ttl)
            }

            fn list(&self, query: Query) -> StoreFuture<Page> {
                (**self).list(query)
            }

            fn stats(&self) -> StoreFuture<Stats> {
                (**self).stats()
            }

            fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
                (**self).forget_scope(scope)
            }

            fn transactions(&self) -> Option<TransactionKind> {
                (**self).transactions()
            }

            fn record_statement(
                &self,
                holder: Holder,
                record: Record,
                ttl: Duration,
            ) -> Result<RecordStatement, StoreError> {
                (**self).record_statement(holder, record, ttl)
            }

            fn commit_state(&self, holder: Holder) -> StoreFuture<CommitState> {
                (**self).commit_state(holder)
            }

            fn remove_expired(&self) -> StoreFuture<u64> {
                (**self).remove_expired()
            }

            fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
                (**self).diagnose()
            }

            fn name(&self) -> &'static str {
                (**self).name()
            }

            fn observe(&self, observer: Arc<dyn Observer>) {
                (**self).observe(observer);
            }
        }
    };
}

forward!(Arc);
forward!(Box);
