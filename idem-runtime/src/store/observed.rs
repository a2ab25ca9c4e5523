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

    /// Reports the call that began at `began` when its reply is there.
    #[expect(
        clippy::inline_always,
        reason = "measured: a call copies the reply, which is large"
    )]
    #[inline(always)]
    fn called<T: Send + 'static>(
        &self,
        operation: Operation,
        began: Instant,
        reply: StoreFuture<T>,
    ) -> StoreFuture<T> {
        match reply.peek() {
            Some(ready) => {
                self.report(operation, result(ready), began.elapsed());
                reply
            }
            None => self.await_reply(operation, began, reply),
        }
    }

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
        self.observing.report(|observer| {
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
        let began = Instant::now();
        self.called(Operation::Claim, began, self.store.claim(claim))
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        let began = Instant::now();
        self.called(Operation::Renew, began, self.store.renew(holder, lease))
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        let began = Instant::now();
        self.called(
            Operation::Complete,
            began,
            self.store.complete(holder, record, ttl),
        )
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        let began = Instant::now();
        self.called(Operation::Release, began, self.store.release(holder))
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        let began = Instant::now();
        self.called(Operation::Abandon, began, self.store.abandon(holder))
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        let began = Instant::now();
        self.called(Operation::LookUp, began, self.store.look_up(id))
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        let began = Instant::now();
        self.called(Operation::Forget, began, self.store.forget(id))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        let began = Instant::now();
        self.called(
            Operation::Resolve,
            began,
            self.store.resolve(id, fence, record, ttl),
        )
    }

    fn list(&self, query: Query) -> StoreFuture<Page> {
        let began = Instant::now();
        self.called(Operation::List, began, self.store.list(query))
    }

    fn stats(&self) -> StoreFuture<Stats> {
        let began = Instant::now();
        self.called(Operation::Stats, began, self.store.stats())
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        let began = Instant::now();
        self.called(
            Operation::ForgetScope,
            began,
            self.store.forget_scope(scope),
        )
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
        let began = Instant::now();
        self.called(
            Operation::CommitState,
            began,
            self.store.commit_state(holder),
        )
    }

    fn remove_expired(&self) -> StoreFuture<u64> {
        let began = Instant::now();
        self.called(Operation::RemoveExpired, began, self.store.remove_expired())
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        let began = Instant::now();
        self.called(Operation::Diagnose, began, self.store.diagnose())
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.store.observe(observer);
    }
}
