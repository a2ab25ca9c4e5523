//! Gives back claims that the store may have granted although no handler runs under them.
//!
//! A claim whose reply is lost may still reach the store, even much later: a server that was
//! suspended first processes the calls in its buffers. Nobody would settle such a claim. Its lease
//! would lapse and leave an unknown outcome, although nothing ran. The same applies to a try that
//! arrives after the claim was released.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Span;

use crate::attempt::settlement::Settlement;
use crate::request::record_id::RecordId;
use crate::service::background;
use crate::service::backoff::Backoff;
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::service::orphans::{NeedsWorker, Orphan};
use crate::store::{Entry, Holder, Owner, Settled, StoreError};
use crate::trace::Event;

/// Looks for a claim that was sent `sent` times, and gives the claim back when it is found.
///
/// `retention` is the retention of the claim.
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
        failed_at: now,
        give_up_at: deadline::after(now, remembered_for),
        backoff: Backoff::new(),
    });
    match added {
        Ok(NeedsWorker(false)) => {}
        Ok(NeedsWorker(true)) => {
            let worker = Worker {
                idem: idem.clone(),
                has_ended: false,
            };
            let tracked = Some(idem.attempts().token());
            background::spawn(runtime, Span::none(), tracked, work(worker));
        }
        Err(_) => Event {
            record: Some(&id),
            ..Event::default()
        }
        .error(
            "too many claims have no reply, so this claim is not looked up; it ends with its lease",
        ),
    }
}

/// The only task that looks for claims. If its runtime shuts down first, the next claim starts
/// another worker.
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

/// Looks up one claim at a time, so that a store that just recovered is not overloaded.
async fn work(mut worker: Worker) {
    let idem = &worker.idem.clone();
    let window = idem
        .settings()
        .lease
        .saturating_add(idem.settings().store_timeout);
    let mut outage: Option<Outage> = None;
    let mut backoff = Backoff::new();
    while let Some(mut orphan) = idem.orphans().next().await {
        match settle(idem, &orphan).await {
            Err(_) => {
                let now = Instant::now();
                let began = match &outage {
                    Some(outage) if !outage.is_over => outage.began,
                    _ => now,
                };
                outage = Some(Outage {
                    began,
                    failed_at: now,
                    is_over: false,
                });
                if now < orphan.give_up_at {
                    idem.orphans().look_again(orphan);
                }
                tokio::time::sleep(backoff.pause()).await;
            }
            Ok(found) => {
                backoff = Backoff::new();
                if let Some(outage) = &mut outage {
                    outage.is_over = true;
                    // The store may still execute calls that were sent before it failed. A later
                    // outage cannot delay this claim, because by then the claim has arrived or is
                    // lost.
                    if outage.began < deadline::after(orphan.sent_at, window) {
                        orphan.failed_at = orphan.failed_at.max(outage.failed_at);
                    }
                }
                let until = deadline::after(orphan.failed_at, window).min(orphan.give_up_at);
                let is_settled = match found {
                    Found::Settled => orphan.sent == 1,
                    // Every try that arrives in time finds the record.
                    Found::Recorded(expires_in) => expires_in >= window,
                    Found::Nothing => false,
                };
                if !is_settled && Instant::now() < until {
                    idem.orphans().look_again(orphan);
                }
            }
        }
    }
    worker.has_ended = true;
}

/// A series of store failures without a success in between.
struct Outage {
    began: Instant,
    /// When the store last failed.
    failed_at: Instant,
    is_over: bool,
}

/// The entry that the store holds under the id of a claim.
enum Found {
    /// The claim, which was settled.
    Settled,
    /// A record, which expires after this duration.
    Recorded(Duration),
    /// No claim and no record.
    Nothing,
}

/// Settles one claim, if the store has it by now.
///
/// Sends no new claim for this purpose, because that claim could be granted and lost as well.
/// Instead, the fence is looked up. Fence and owner together settle this claim or no claim.
async fn settle(idem: &Idempotency, orphan: &Orphan) -> Result<Found, StoreError> {
    let id = orphan.id;
    let (fence, attempt, fingerprint) = match idem.in_time(idem.store().look_up(id)).await {
        Ok(Some(
            Entry::InFlight {
                fence,
                attempt,
                fingerprint,
                ..
            }
            | Entry::Unknown {
                fence,
                attempt,
                fingerprint,
                ..
            },
        )) => (fence, attempt, fingerprint),
        Ok(Some(Entry::Recorded { expires_in, .. })) => return Ok(Found::Recorded(expires_in)),
        Ok(_) | Err(StoreError::Undecodable(_)) => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let owner = orphan.owner;
    let holder = Holder { id, owner, fence };
    let late = idem.unwritten().look_for(&id, attempt, fingerprint);
    let settlement = match &late {
        // The claim has overtaken an attempt of this process whose handler has returned a response.
        Some(late) => Settlement::Complete {
            record: late.record.clone(),
            ttl: late.expires_at.saturating_duration_since(Instant::now()),
        },
        None => Settlement::without_run(attempt),
    };
    let settled = idem.in_time(settlement.apply(idem, holder)).await?;
    if settled != Settled::Done {
        return Ok(Found::Nothing);
    }
    if late.is_some() {
        idem.unwritten().take(&id, attempt, fingerprint);
    }
    Ok(Found::Settled)
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::request::fingerprint::Fingerprint;
    use crate::store::{Claim, Claimed, MemoryStore, Record};
    use crate::testing::Fault::{DelayReply, ErrBefore};
    use crate::testing::{FaultStore, Operation};

    const LEASE: Duration = Duration::from_secs(30);
    const WINDOW: Duration = Duration::from_secs(35);
    const HOUR: Duration = Duration::from_secs(3600);
    const ID: RecordId = RecordId::from_bytes([1; 32]);

    fn start() -> (FaultStore<MemoryStore>, Idempotency) {
        let store = FaultStore::new(MemoryStore::default());
        let idem = Idempotency::builder().store(store.clone()).lease(LEASE);
        let idem = idem.store_timeout(WINDOW.saturating_sub(LEASE)).build();
        (store, idem)
    }

    /// Looks for a claim that never arrives. Returns how long the search takes.
    async fn look(idem: &Idempotency) -> Duration {
        let begun = Instant::now();
        look_for(idem, ID, Owner::unique(), HOUR, 2, &Handle::current());
        assert_eq!(idem.drain(Duration::MAX).await, 0);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn occasional_look_up_failures_do_not_prolong_the_search_forever() {
        let (store, idem) = start();
        // One of eight look-ups fails.
        let mostly_well = [DelayReply(Duration::ZERO); 7]
            .into_iter()
            .chain([ErrBefore]);
        store.script(
            Operation::LookUp,
            std::iter::repeat_n(mostly_well, 1_000).flatten(),
        );
        let took = look(&idem).await;
        assert!(took >= WINDOW && took < 3 * WINDOW, "{took:?}");
    }

    /// The store may receive a claim before an outage and execute it after the outage.
    #[tokio::test(start_paused = true)]
    async fn the_search_for_a_claim_lasts_one_window_longer_than_an_outage() {
        let (store, idem) = start();
        store.script(Operation::LookUp, [ErrBefore; 100]);
        let begun = Instant::now();
        look_for(&idem, ID, Owner::unique(), HOUR, 2, &Handle::current());
        while store.calls(Operation::LookUp) < 101 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let outage = begun.elapsed();
        assert!(outage > WINDOW, "{outage:?}");
        assert_eq!(idem.drain(Duration::MAX).await, 0);
        let left = begun.elapsed().saturating_sub(outage);
        assert!(left + Duration::from_secs(3) > WINDOW, "{left:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_outlives_the_window_ends_the_search() {
        for (ttl, ends_at_once) in [(HOUR, true), (LEASE, false)] {
            let (store, idem) = start();
            let fingerprint = Fingerprint::from_bytes([7; 32]);
            let claim = Claim::new(ID, fingerprint, LEASE, HOUR);
            let owner = claim.owner;
            let Ok(Claimed::Fresh { fence, .. }) = idem.store().claim(claim).await else {
                panic!("nobody else claims it");
            };
            let holder = Holder {
                id: ID,
                owner,
                fence,
            };
            let record = Record::not_kept(fingerprint, StatusCode::CREATED);
            let recorded = idem.store().complete(holder, record, ttl).await;
            assert!(matches!(recorded, Ok(Settled::Done)));
            look(&idem).await;
            let looks = store.calls(Operation::LookUp);
            assert_eq!(looks == 1, ends_at_once, "{looks} look-ups");
        }
    }
}
