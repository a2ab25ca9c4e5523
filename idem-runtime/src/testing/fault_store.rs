//! A store with injected faults, for testing how a service copes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::fault::Fault;
use super::fault_mix::FaultMix;
use crate::observe::{Observer, Operation};
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::{
    Claim, Claimed, CommitState, DecodeError, Entry, Finding, Holder, Page, Query, Record,
    RecordStatement, Settled, Stats, Store, StoreError, StoreFuture, TransactionKind,
};

/// Wraps another store and injects faults, either from a script or at random from a seed.
///
/// A [`script`](Self::script) is a queue of faults for one operation. Each coming call takes one
/// fault. A [`FaultMix`] draws faults for all calls without a script. [`heal`](Self::heal) ends
/// both.
///
/// A call starts when its future is polled. It yields to the scheduler once before it is applied,
/// and once before it returns, like a call over a network. So the future can be dropped before,
/// between and after these steps. As over a network, a caller that waits for a claim to end is
/// never woken, and has to claim again.
///
/// Clones share all state.
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use std::time::Duration;
/// use axum_idem::store::{MemoryStore, Store, StoreError};
/// use axum_idem::testing::{Fault, FaultMix, FaultStore, Operation};
/// # use axum_idem::{Idempotency, Scope};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// # let id = Idempotency::in_memory().record_id(&Scope::new(), "8e03978e");
/// let store = FaultStore::new(MemoryStore::default());
///
/// store.script(Operation::LookUp, [Fault::ErrBefore, Fault::Delay(Duration::from_secs(1))]);
/// assert!(matches!(store.look_up(id).await, Err(StoreError::Unavailable(_))));
/// assert!(matches!(store.look_up(id).await, Ok(None)));
///
/// store.mix(FaultMix::seeded(7).rate(Operation::Forget, Fault::ErrAfter, 0.5));
/// let mut failed = 0;
/// for _ in 0..100 {
///     failed += usize::from(store.forget(id).await.is_err());
/// }
/// assert!((25..75).contains(&failed));
///
/// store.heal();
/// assert!(matches!(store.forget(id).await, Ok(false)));
/// assert_eq!(store.calls(Operation::Forget), 101);
/// # }
/// ```
pub struct FaultStore<S>(Arc<Line<S>>);

struct Line<S> {
    store: S,
    plan: Mutex<Plan>,
    /// How often paused calls were resumed.
    resumed: watch::Sender<u64>,
}

#[derive(Default)]
struct Plan {
    scripts: [VecDeque<Fault>; Operation::ALL.len()],
    mix: Option<FaultMix>,
    calls: [usize; Operation::ALL.len()],
}

impl<S: Store> FaultStore<S> {
    /// Wraps `store`, without any faults yet.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self(Arc::new(Line {
            store,
            plan: Mutex::default(),
            resumed: watch::Sender::default(),
        }))
    }

    /// Queues faults for the next calls of `operation`, after the faults that are already queued.
    pub fn script(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.plan().scripts[operation as usize].extend(faults);
    }

    /// Draws faults for all calls without a script from `mix`. Replaces an earlier mix.
    pub fn mix(&self, mix: FaultMix) {
        self.plan().mix = Some(mix);
    }

    /// Resumes the calls that are [paused](Fault::Pause) now.
    pub fn resume(&self) {
        self.0.resumed.send_modify(|times| *times += 1);
    }

    /// Removes all faults that have not started, and resumes paused calls. Calls that hang stay
    /// hanging.
    pub fn heal(&self) {
        let mut plan = self.plan();
        plan.scripts = Default::default();
        plan.mix = None;
        drop(plan);
        self.resume();
    }

    /// Returns how often `operation` was called, including calls with faults.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> usize {
        self.plan().calls[operation as usize]
    }

    /// Returns the wrapped store.
    #[must_use]
    pub fn behind(&self) -> &S {
        &self.0.store
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass<T: Send + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce(&S) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let fault = self.plan().next(operation);
        let paused_until = *self.0.resumed.borrow() + 1;
        let line = self.0.clone();
        StoreFuture::new(async move {
            tokio::task::yield_now().await;
            match fault {
                Some(Fault::ErrBefore) => return Err(unavailable()),
                Some(Fault::Undecodable) => {
                    return Err(StoreError::Undecodable(DecodeError::Damaged));
                }
                Some(Fault::Hang) => std::future::pending().await,
                _ => {}
            }
            let apply = async move {
                match fault {
                    Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
                    Some(Fault::Pause) => {
                        let mut resumed = line.resumed.subscribe();
                        // The sender lives as long as `line`.
                        let _ = resumed.wait_for(|times| *times >= paused_until).await;
                    }
                    _ => {}
                }
                call(&line.store).await
            };
            let result = match fault {
                Some(Fault::Delay(_) | Fault::Pause) => {
                    let on_its_way = tokio::spawn(apply);
                    on_its_way.await.unwrap_or(Err(unavailable()))
                }
                _ => apply.await,
            };
            tokio::task::yield_now().await;
            match fault {
                Some(Fault::DelayReply(delay)) => {
                    tokio::time::sleep(delay).await;
                    result
                }
                Some(Fault::ErrAfter) => result.and(Err(unavailable())),
                Some(Fault::DropReply) => std::future::pending().await,
                _ => result,
            }
        })
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("a fault was injected".into())
}

impl Plan {
    fn next(&mut self, operation: Operation) -> Option<Fault> {
        self.calls[operation as usize] += 1;
        let scripted = self.scripts[operation as usize].pop_front();
        scripted.or_else(|| self.mix.as_mut()?.draw(operation))
    }
}

impl<S: Store> Store for FaultStore<S> {
    fn claim(&self, mut claim: Claim) -> StoreFuture<Claimed> {
        claim.wait = false;
        self.pass(Operation::Claim, |store| store.claim(claim))
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.pass(Operation::Renew, move |store| store.renew(holder, lease))
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.pass(Operation::Complete, move |store| {
            store.complete(holder, record, ttl)
        })
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.pass(Operation::Release, move |store| store.release(holder))
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.pass(Operation::Abandon, move |store| store.abandon(holder))
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        self.pass(Operation::LookUp, move |store| store.look_up(id))
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        self.pass(Operation::Forget, move |store| store.forget(id))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        self.pass(Operation::Resolve, move |store| {
            store.resolve(id, fence, record, ttl)
        })
    }

    fn list(&self, query: Query) -> StoreFuture<Page> {
        self.pass(Operation::List, move |store| store.list(query))
    }

    fn stats(&self) -> StoreFuture<Stats> {
        self.pass(Operation::Stats, S::stats)
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        self.pass(Operation::ForgetScope, move |store| {
            store.forget_scope(scope)
        })
    }

    fn transactions(&self) -> Option<TransactionKind> {
        self.0.store.transactions()
    }

    /// Never fails by a fault, because the store is not asked.
    fn record_statement(
        &self,
        holder: Holder,
        record: Record,
        ttl: Duration,
    ) -> Result<RecordStatement, StoreError> {
        self.0.store.record_statement(holder, record, ttl)
    }

    fn commit_state(&self, holder: Holder) -> StoreFuture<CommitState> {
        self.pass(Operation::CommitState, move |store| {
            store.commit_state(holder)
        })
    }

    fn remove_expired(&self) -> StoreFuture<u64> {
        self.pass(Operation::RemoveExpired, S::remove_expired)
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        self.pass(Operation::Diagnose, S::diagnose)
    }

    fn name(&self) -> &'static str {
        self.0.store.name()
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.0.store.observe(observer);
    }
}

impl<S: Store + Default> Default for FaultStore<S> {
    fn default() -> Self {
        Self::new(S::default())
    }
}

impl<S> Clone for FaultStore<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultStore").field(&self.0.store).finish()
    }
}
