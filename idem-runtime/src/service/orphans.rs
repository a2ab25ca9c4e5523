//! The queue of claims that the store may have granted although nobody runs under them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::request::record_id::RecordId;
use crate::service::backoff::Backoff;
use crate::store::Owner;

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

pub(crate) struct Orphan {
    pub(crate) id: RecordId,
    pub(crate) owner: Owner,
    /// How often the claim was sent. Each of them may arrive by itself.
    pub(crate) sent: u32,
    /// When it was sent for the last time, or a moment later.
    pub(crate) sent_at: Instant,
    /// When the store failed last in an outage that may delay the claim, or `sent_at`.
    pub(crate) failed_at: Instant,
    /// Whatever arrived is forgotten from then on.
    pub(crate) give_up_at: Instant,
    pub(crate) backoff: Backoff,
}

/// Whether the caller has to start the worker.
pub(crate) struct NeedsWorker(pub(crate) bool);

/// There are too many claims to look for another.
pub(crate) struct Full;

impl Orphans {
    /// Adds a claim to look for. Returns whether a worker has to be started, or that there is no room.
    pub(crate) fn add(&self, orphan: Orphan) -> Result<NeedsWorker, Full> {
        let mut queue = self.lock();
        if queue.orphans.len() >= MOST {
            return Err(Full);
        }
        queue.add(Instant::now(), orphan);
        let has_worker = std::mem::replace(&mut queue.has_worker, true);
        // A runtime that shuts down drops what it is given at once, and the worker locks the queue.
        drop(queue);
        if has_worker {
            self.added.notify_one();
        }
        Ok(NeedsWorker(!has_worker))
    }

    /// The worker has ended before the queue was empty. The next claim starts another.
    pub(crate) fn worker_ended(&self) {
        self.lock().has_worker = false;
    }

    /// The next one that is due. `None` when there are no more, and then there is no worker either.
    pub(crate) async fn next(&self) -> Option<Orphan> {
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

    pub(crate) fn look_again(&self, mut orphan: Orphan) {
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
