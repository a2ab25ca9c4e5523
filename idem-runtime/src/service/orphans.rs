//! The queue of claims that the store may have granted although no handler runs under them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::request::record_id::RecordId;
use crate::service::backoff::Backoff;
use crate::store::Owner;

/// The maximum number of claims in the queue. An outage leaves one claim for each request that
/// fails.
const MOST: usize = 65_536;

/// Claims that the store may have granted although their replies were lost.
#[derive(Default)]
pub(crate) struct Orphans {
    queue: Mutex<Queue>,
    added: Notify,
}

#[derive(Default)]
struct Queue {
    /// A heap, because the code of a `BTreeMap` is ten times as large.
    orphans: BinaryHeap<Due>,
    has_worker: bool,
}

/// A claim, and the time of its next look-up. A heap returns the greatest first, so an earlier time is greater.
struct Due {
    at: Instant,
    orphan: Orphan,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

pub(crate) struct Orphan {
    pub(crate) id: RecordId,
    pub(crate) owner: Owner,
    /// How often the claim was sent. Each try may reach the store separately.
    pub(crate) sent: u32,
    /// The time of the last try, or a moment later.
    pub(crate) sent_at: Instant,
    /// The last failure of the store in an outage that began early enough to delay the claim. Initially `sent_at`.
    pub(crate) failed_at: Instant,
    /// From then on, the store has forgotten every claim that arrived.
    pub(crate) give_up_at: Instant,
    pub(crate) backoff: Backoff,
}

/// Whether the caller must start the worker.
pub(crate) struct NeedsWorker(pub(crate) bool);

/// The queue has no room for another claim.
pub(crate) struct Full;

impl Orphans {
    /// Adds a claim to the queue. Returns whether the caller must start a worker, or that there is
    /// no room.
    pub(crate) fn add(&self, orphan: Orphan) -> Result<NeedsWorker, Full> {
        let mut queue = self.lock();
        if queue.orphans.len() >= MOST {
            return Err(Full);
        }
        queue.add(Instant::now(), orphan);
        let has_worker = std::mem::replace(&mut queue.has_worker, true);
        // A runtime that shuts down drops a spawned task immediately, and the drop of the worker
        // locks the queue.
        drop(queue);
        if has_worker {
            self.added.notify_one();
        }
        Ok(NeedsWorker(!has_worker))
    }

    /// Notes that the worker ended before the queue was empty. The next claim starts another
    /// worker.
    pub(crate) fn worker_ended(&self) {
        self.lock().has_worker = false;
    }

    /// Waits for the next claim that is due. Returns `None` if the queue is empty. Then the worker
    /// must end.
    pub(crate) async fn next(&self) -> Option<Orphan> {
        loop {
            let due = {
                let mut queue = self.lock();
                let Some(first) = queue.orphans.peek_mut() else {
                    // A heap would keep the memory that it needed in an outage.
                    *queue = Queue::default();
                    return None;
                };
                if first.at <= Instant::now() {
                    return Some(PeekMut::pop(first).orphan);
                }
                first.at
            };
            // The loop reads the queue again after a wake-up and after a timeout.
            let _ = tokio::time::timeout_at(due, self.added.notified()).await;
        }
    }

    pub(crate) fn look_again(&self, mut orphan: Orphan) {
        let due = Instant::now() + orphan.backoff.pause();
        self.lock().add(due, orphan);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code panics between two changes of the queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn add(&mut self, due: Instant, orphan: Orphan) {
        self.orphans.push(Due { at: due, orphan });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn orphan(id: u8) -> Orphan {
        let now = Instant::now();
        Orphan {
            id: RecordId::from_bytes([id; 32]),
            owner: Owner::unique(),
            sent: 1,
            sent_at: now,
            failed_at: now,
            give_up_at: now,
            backoff: Backoff::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_claim_that_is_due_first_comes_first() {
        let orphans = Orphans::default();
        let now = Instant::now();
        for seconds in [3, 1, 2] {
            let due = now + Duration::from_secs(seconds.into());
            orphans.lock().add(due, orphan(seconds));
        }
        for seconds in [1, 2, 3] {
            let next = orphans.next().await.map(|orphan| orphan.id);
            assert_eq!(next, Some(RecordId::from_bytes([seconds; 32])));
            assert_eq!(now.elapsed().as_secs(), u64::from(seconds));
        }
        assert!(orphans.next().await.is_none());
    }
}
