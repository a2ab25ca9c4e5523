//! A store with injected faults, for testing how a service copes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::fault::{Fault, Operation};
use super::fault_mix::FaultMix;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::{
    Claim, Claimed, DecodeError, Entry, Holder, Page, Query, Record, Settled, Stats, Store,
    StoreError, StoreFuture,
};

/// Another store behind a line that fails, by a script or at random by a seed.
///
/// A [`script`](Self::script) is a queue of faults for one operation, one for each call to come. A
/// [`FaultMix`] draws from a seed what becomes of every call that no script is about. Both end with
/// [`heal`](Self::heal).
///
/// A call is made when its future is polled, and passes through the scheduler before it is applied
/// and again before it answers, as it would over a network. So it can be dropped before, between and
/// after. As over a network too, a caller that waits for a claim to end is never woken, and looks
/// again.
///
/// Clones share everything.
///
/// ```
/// use std::time::Duration;
/// use idem_runtime::store::{MemoryStore, Store, StoreError};
/// use idem_runtime::testing::{Fault, FaultMix, FaultStore, Operation};
/// # use idem_runtime::{Idempotency, Scope};
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
    /// How often paused calls were let go on.
    resumed: watch::Sender<u64>,
}

#[derive(Default)]
struct Plan {
    scripts: [VecDeque<Fault>; Operation::ALL.len()],
    mix: Option<FaultMix>,
    calls: [usize; Operation::ALL.len()],
}

impl<S: Store> FaultStore<S> {
    /// A line to `store` that does not fail yet.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self(Arc::new(Line {
            store,
            plan: Mutex::default(),
            resumed: watch::Sender::default(),
        }))
    }

    /// What becomes of the next calls of `operation`, one after another, behind those that are
    /// scripted already.
    pub fn script(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.plan().scripts[operation as usize].extend(faults);
    }

    /// Draws what becomes of each call that is not scripted from `mix`, in place of the one before.
    pub fn mix(&self, mix: FaultMix) {
        self.plan().mix = Some(mix);
    }

    /// Lets the calls go on that are [paused](Fault::Pause) by now.
    pub fn resume(&self) {
        self.0.resumed.send_modify(|times| *times += 1);
    }

    /// Ends all faults that have not begun, and lets paused calls go on. What hangs, hangs.
    pub fn heal(&self) {
        let mut plan = self.plan();
        plan.scripts = Default::default();
        plan.mix = None;
        drop(plan);
        self.resume();
    }

    /// How often `operation` was called, faults included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> usize {
        self.plan().calls[operation as usize]
    }

    /// The store behind the line.
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
                        // The sender lives as long as the line.
                        let _ = resumed.wait_for(|times| *times >= paused_until).await;
                    }
                    _ => {}
                }
                call(&line.store).await
            };
            let answer = match fault {
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
                    answer
                }
                Some(Fault::ErrAfter) => answer.and(Err(unavailable())),
                Some(Fault::DropReply) => std::future::pending().await,
                _ => answer,
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
        self.pass(Operation::Stats, |store| store.stats())
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        self.pass(Operation::ForgetScope, move |store| {
            store.forget_scope(scope)
        })
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
