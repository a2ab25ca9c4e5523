//! A store that reports each call to the observer of its service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    Claim, Claimed, CommitState, Entry, Finding, Holder, Page, Query, Record, RecordStatement,
    Settled, Stats, Store, StoreError, StoreFuture, TransactionKind,
};
use crate::observe::{CallResult, Observer, Observing, Operation, StoreCall};
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;

/// A store that reports each call. Only a service with an observer has one, so the others pay nothing.
#[derive(Clone)]
pub(crate) struct Observed {
    store: Arc<dyn Store>,
    name: &'static str,
    observing: Observing,
}

/// A call that has not ended.
struct Call {
    observed: Observed,
    operation: Operation,
    began: Instant,
    has_ended: bool,
}

impl Observed {
    pub(crate) fn new(store: Arc<dyn Store>, observing: Observing) -> Self {
        store.observe(observing.observer());
        Self {
            name: store.name(),
            store,
            observing,
        }
    }

    /// Reports the call that began at `began`, if its reply is there.
    #[inline]
    fn is_reported<T>(&self, operation: Operation, began: Instant, reply: &StoreFuture<T>) -> bool {
        let Some(ready) = reply.peek() else {
            return false;
        };
        self.report(operation, result(ready), began.elapsed());
        true
    }

    fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce(&dyn Store) -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        let began = Instant::now();
        let mut reply = call(&*self.store);
        if !self.is_reported(operation, began, &reply) {
            reply = self.await_reply(operation, began, reply);
        }
        reply
    }

    /// Reports the call when its reply arrives. Not inlined, because a store in memory replies at once.
    #[inline(never)]
    fn await_reply<T: Send + 'static>(
        &self,
        operation: Operation,
        began: Instant,
        reply: StoreFuture<T>,
    ) -> StoreFuture<T> {
        let mut call = Call {
            observed: self.clone(),
            operation,
            began,
            has_ended: false,
        };
        StoreFuture::new(async move {
            let reply = reply.await;
            call.has_ended = true;
            call.report(result(&reply));
            reply
        })
    }

    fn report(&self, operation: Operation, result: CallResult, took: Duration) {
        self.observing.report(&|observer| {
            observer.store_called(&StoreCall {
                store: self.name,
                operation,
                result,
                took,
            });
        });
    }
}

impl Call {
    fn report(&self, result: CallResult) {
        self.observed
            .report(self.operation, result, self.began.elapsed());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.has_ended {
            self.report(CallResult::Dropped);
        }
    }
}

fn result<T>(reply: &Result<T, StoreError>) -> CallResult {
    match reply {
        Ok(_) => CallResult::Done,
        Err(StoreError::Unavailable(_)) => CallResult::Unavailable,
        Err(StoreError::TimedOut | StoreError::Busy) => CallResult::TimedOut,
        Err(StoreError::Unfit(_)) => CallResult::Unfit,
        Err(StoreError::Undecodable(_)) => CallResult::Undecodable,
        Err(StoreError::Unsupported | StoreError::InvalidCursor) => CallResult::Other,
    }
}

impl Store for Observed {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        // Without a closure, which would copy the arguments: measured.
        let began = Instant::now();
        let mut reply = self.store.claim(claim);
        if !self.is_reported(Operation::Claim, began, &reply) {
            reply = self.await_reply(Operation::Claim, began, reply);
        }
        reply
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.call(Operation::Renew, |store| store.renew(holder, lease))
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        // Without a closure, which would copy the arguments: measured.
        let began = Instant::now();
        let mut reply = self.store.complete(holder, record, ttl);
        if !self.is_reported(Operation::Complete, began, &reply) {
            reply = self.await_reply(Operation::Complete, began, reply);
        }
        reply
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.call(Operation::Release, |store| store.release(holder))
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.call(Operation::Abandon, |store| store.abandon(holder))
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        self.call(Operation::LookUp, |store| store.look_up(id))
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        self.call(Operation::Forget, |store| store.forget(id))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        self.call(Operation::Resolve, |store| {
            store.resolve(id, fence, record, ttl)
        })
    }

    fn list(&self, query: Query) -> StoreFuture<Page> {
        self.call(Operation::List, |store| store.list(query))
    }

    fn stats(&self) -> StoreFuture<Stats> {
        self.call(Operation::Stats, Store::stats)
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        self.call(Operation::ForgetScope, |store| store.forget_scope(scope))
    }

    fn transactions(&self) -> Option<TransactionKind> {
        self.store.transactions()
    }

    /// Not reported, because the store is not asked.
    fn record_statement(
        &self,
        holder: Holder,
        record: Record,
        ttl: Duration,
    ) -> Result<RecordStatement, StoreError> {
        self.store.record_statement(holder, record, ttl)
    }

    fn commit_state(&self, holder: Holder) -> StoreFuture<CommitState> {
        self.call(Operation::CommitState, |store| store.commit_state(holder))
    }

    fn remove_expired(&self) -> StoreFuture<u64> {
        self.call(Operation::RemoveExpired, Store::remove_expired)
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        self.call(Operation::Diagnose, Store::diagnose)
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.store.observe(observer);
    }
}
