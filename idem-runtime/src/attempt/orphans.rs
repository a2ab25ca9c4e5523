//! Claims that the store may have granted although nobody runs under them.
//!
//! A claim whose reply is lost may still reach the store, also much later: a server that stood still
//! first works off what it was sent. Nobody would settle such a claim. Its lease would end it, and leave
//! an unknown outcome behind, though nothing ran. The same goes for a try that arrives after the claim
//! was released.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::attempt::settlement::Settlement;
use crate::request::record_id::RecordId;
use crate::service::backoff::Backoff;
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::service::orphans::{NeedsWorker, Orphan};
use crate::store::{Entry, Holder, Owner, Settled, StoreError};
use crate::trace::TARGET;

/// Looks for a claim that was sent `sent` times, and gives it back when it turns up.
///
/// `retention` is that of the claim.
pub(crate) fn look_for(
    idem: &Idempotency,
    id: RecordId,
    owner: Owner,
    retention: Duration,
    sent: u32,
    runtime: &Handle,
) {
    let now = Instant::now();
    let remembered_for = idem.settings().lease.saturating_add(retention);
    let added = idem.orphans().add(Orphan {
        id,
        owner,
        sent,
        sent_at: now,
        give_up_at: deadline::after(now, remembered_for),
        backoff: Backoff::new(),
    });
    match added {
        Ok(NeedsWorker(false)) => {}
        Ok(NeedsWorker(true)) => {
            let attempts = idem.attempts().clone();
            let worker = Worker {
                idem: idem.clone(),
                has_ended: false,
            };
            attempts.spawn_on(work(worker), runtime);
        }
        Err(_) => tracing::error!(
            target: TARGET,
            record = %id.short(),
            "too many claims are unanswered to look for another; its lease ends this one"
        ),
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
            self.idem.orphans().worker_ended();
        }
    }
}

/// Looks for one claim after the other, so that a store which just came back is not crowded.
async fn work(mut worker: Worker) {
    let idem = &worker.idem.clone();
    let window = idem
        .settings()
        .lease
        .saturating_add(idem.settings().store_timeout);
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
