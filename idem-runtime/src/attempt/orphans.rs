//! Claims that the store may have granted although nobody runs under them.
//!
//! A claim whose reply is lost may still reach the store, also much later: a server that stood still
//! first works off what it was sent. Nobody would settle such a claim. Its lease would end it, and leave
//! an unknown outcome behind, though nothing ran. The same goes for a try that arrives after the claim
//! was released.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::attempt::settle::Settlement;
use crate::request::record_id::RecordId;
use crate::service::backoff::Backoff;
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::store::{Entry, Holder, Owner, Settled, StoreError};

/// How many are looked for at once. An outage leaves one for each request that it fails.
const MOST: usize = 65_536;

/// Claims that the store may have granted unheard.
#[derive(Default)]
pub(crate) struct Orphans {
    queue: Mutex<Queue>,
    added: Notify,
}

#[derive(Default)]
struct Queue {
    /// By when they are looked for, and a number that makes each key unique.
    orphans: BTreeMap<(Instant, u64), Orphan>,
    last_number: u64,
    has_worker: bool,
}

struct Orphan {
    id: RecordId,
    owner: Owner,
    /// How often the claim was sent. Each of them may arrive by itself.
    sent: u32,
    /// When it was sent for the last time, or a moment later.
    sent_at: Instant,
    /// Whatever arrived is forgotten from then on.
    give_up_at: Instant,
    backoff: Backoff,
}

impl Orphans {
    /// Looks for a claim that was sent `sent` times, and gives it back when it turns up.
    ///
    /// `retention` is that of the claim.
    pub(crate) fn add(
        idem: &Idempotency,
        id: RecordId,
        owner: Owner,
        retention: Duration,
        sent: u32,
        runtime: &Handle,
    ) {
        let orphans = idem.orphans();
        let now = Instant::now();
        let remembered_for = idem.lease().saturating_add(retention);
        let orphan = Orphan {
            id,
            owner,
            sent,
            sent_at: now,
            give_up_at: deadline::after(now, remembered_for),
            backoff: Backoff::new(),
        };
        let mut queue = orphans.lock();
        if queue.orphans.len() >= MOST {
            drop(queue);
            tracing::error!(
                target: crate::trace::TARGET,
                record = %id.short(),
                "too many claims are unanswered to look for another; its lease ends this one"
            );
            return;
        }
        queue.add(now, orphan);
        let has_worker = std::mem::replace(&mut queue.has_worker, true);
        // A runtime that shuts down drops what it is given at once, and the worker locks the queue.
        drop(queue);
        if has_worker {
            orphans.added.notify_one();
        } else {
            let attempts = idem.attempts().clone();
            let worker = Worker {
                idem: idem.clone(),
                has_ended: false,
            };
            attempts.spawn_on(work(worker), runtime);
        }
    }

    /// The next one that is due. `None` when there are no more, and then there is no worker either.
    async fn next(&self) -> Option<Orphan> {
        loop {
            let due = {
                let mut queue = self.lock();
                let Some(first) = queue.orphans.first_entry() else {
                    queue.has_worker = false;
                    return None;
                };
                let (due, _) = *first.key();
                if due <= Instant::now() {
                    return Some(first.remove());
                }
                due
            };
            // Either way the queue is looked at again.
            let _ = tokio::time::timeout_at(due, self.added.notified()).await;
        }
    }

    fn look_again(&self, mut orphan: Orphan) {
        let due = Instant::now() + orphan.backoff.pause();
        self.lock().add(due, orphan);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics between two changes of the queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn add(&mut self, due: Instant, orphan: Orphan) {
        self.last_number += 1;
        self.orphans.insert((due, self.last_number), orphan);
    }
}

/// The one task that looks. When its runtime ends before it does, the next claim starts another.
struct Worker {
    idem: Idempotency,
    has_ended: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.has_ended {
            self.idem.orphans().lock().has_worker = false;
        }
    }
}

/// Looks for one claim after the other, so that a store which just came back is not crowded.
async fn work(mut worker: Worker) {
    let idem = &worker.idem.clone();
    let window = idem.lease().saturating_add(idem.store_timeout());
    let mut failed_at = None;
    let mut backoff = Backoff::new();
    while let Some(orphan) = idem.orphans().next().await {
        match give_back(idem, &orphan).await {
            Err(_) => {
                failed_at = Some(Instant::now());
                if Instant::now() < orphan.give_up_at {
                    idem.orphans().look_again(orphan);
                }
                tokio::time::sleep(backoff.pause()).await;
            }
            Ok(given_back) => {
                backoff = Backoff::new();
                // What the store was sent before it failed may arrive after it has recovered.
                let since = failed_at.map_or(orphan.sent_at, |at| orphan.sent_at.max(at));
                let until = deadline::after(since, window).min(orphan.give_up_at);
                let is_over = given_back && orphan.sent == 1 || Instant::now() >= until;
                if !is_over {
                    idem.orphans().look_again(orphan);
                }
            }
        }
    }
    worker.has_ended = true;
}

/// Gives one claim back, if the store has it by now.
///
/// No claim is sent for that, since it could be granted and get lost as well. The fence is looked up,
/// and together with the owner it settles this claim or none.
async fn give_back(idem: &Idempotency, orphan: &Orphan) -> Result<bool, StoreError> {
    let id = orphan.id;
    let (fence, attempt) = match idem.in_time(idem.store().look_up(id)).await {
        Ok(Some(
            Entry::InFlight { fence, attempt, .. } | Entry::Unknown { fence, attempt, .. },
        )) => (fence, attempt),
        Ok(_) | Err(StoreError::Undecodable(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let owner = orphan.owner;
    let holder = Holder { id, owner, fence };
    let late = idem.unwritten().look_for(&id, attempt);
    let settlement = match &late {
        // It has overtaken an attempt of this process, whose handler has responded.
        Some(late) => Settlement::Complete {
            record: late.record.clone(),
            ttl: late.expires_at.saturating_duration_since(Instant::now()),
        },
        None => Settlement::give_back(attempt),
    };
    let settled = idem.in_time(settlement.apply(idem, holder)).await?;
    let is_done = settled == Settled::Done;
    if is_done && late.is_some() {
        idem.unwritten().take(&id, attempt);
    }
    Ok(is_done)
}
