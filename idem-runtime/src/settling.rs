//! Tells the store what became of an attempt, and tells it again when that fails.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::idempotency::Idempotency;
use crate::store::{Holder, Record, Settled, StoreError, StoreFuture};
use crate::trace::{self, Outcome};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// What became of an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Settlement {
    /// Its answer is kept, or the note that there was one.
    Complete { record: Record, ttl: Duration },
    /// The key is free.
    Release,
    /// Nobody knows.
    Abandon,
}

impl Settlement {
    /// Nothing of this attempt ran. Whether an earlier one did is as unknown as it was.
    pub(crate) const fn give_back(attempt: u32) -> Self {
        if attempt > 1 {
            Self::Abandon
        } else {
            Self::Release
        }
    }

    pub(crate) fn apply(&self, idem: &Idempotency, holder: Holder) -> StoreFuture<Settled> {
        match self {
            Self::Complete { record, ttl } => idem.store().complete(holder, record.clone(), *ttl),
            Self::Release => idem.store().release(holder),
            Self::Abandon => idem.store().abandon(holder),
        }
    }

    const fn outcome(&self) -> Outcome {
        match self {
            Self::Complete { .. } => Outcome::Recorded,
            Self::Release => Outcome::Released,
            Self::Abandon => Outcome::Unknown,
        }
    }
}

/// Settles one attempt whose store did not answer at once.
#[derive(Debug)]
pub(crate) struct Settler {
    pub(crate) endpoint: &'static str,
    pub(crate) idem: Idempotency,
    pub(crate) holder: Holder,
    pub(crate) held_until: Instant,
    /// Without one there is no background, and the lease ends what could not be settled.
    pub(crate) runtime: Option<Handle>,
}

impl Settler {
    /// Awaits the answer of the store.
    pub(crate) async fn settle(self, settlement: Settlement, answer: StoreFuture<Settled>) {
        match self.idem.in_time(answer).await {
            Ok(settled) => report(self.endpoint, self.holder, &settlement, settled),
            Err(error) => self.try_again(settlement, &error),
        }
    }

    /// When the store fails, the claim stays, and the rest goes on in the background: the work is done,
    /// and its client gets its answer.
    pub(crate) fn try_again(self, settlement: Settlement, error: &StoreError) {
        tracing::error!(
            target: crate::TARGET,
            endpoint = self.endpoint,
            record = %self.holder.id.short(),
            outcome = %settlement.outcome(),
            error = error as &dyn std::error::Error,
            "the store could not settle an attempt; it is tried again while the lease holds"
        );
        if let Some(runtime) = self.runtime.clone() {
            let attempts = self.idem.attempts().clone();
            attempts.spawn_on(self.keep_trying(settlement), &runtime);
        }
    }

    async fn keep_trying(mut self, settlement: Settlement) {
        let give_up_at = match &settlement {
            Settlement::Complete { ttl, .. } => Instant::now() + *ttl,
            // A lease that is not renewed has the same effect a little later.
            Settlement::Release | Settlement::Abandon => self.held_until,
        };
        let mut pause = FIRST_PAUSE.min(self.idem.lease() / 3);
        loop {
            tokio::time::sleep(pause).await;
            // Well within a lease, so that each try finds the claim held.
            pause = (pause * 2).min(LAST_PAUSE).min(self.idem.lease() / 3);
            if Instant::now() >= self.held_until.min(give_up_at) {
                break;
            }
            let answer = self
                .idem
                .in_time(settlement.apply(&self.idem, self.holder))
                .await;
            if let Ok(settled) = answer {
                return report(self.endpoint, self.holder, &settlement, settled);
            }
            if matches!(settlement, Settlement::Complete { .. }) {
                let asked_at = Instant::now();
                let lease = self.idem.lease();
                let renewed = self
                    .idem
                    .in_time(self.idem.store().renew(self.holder, lease))
                    .await;
                if matches!(renewed, Ok(Settled::Done)) {
                    self.held_until = asked_at + lease;
                }
            }
        }
        tracing::error!(
            target: crate::TARGET,
            endpoint = self.endpoint,
            record = %self.holder.id.short(),
            outcome = %settlement.outcome(),
            "the lease could not be held until the store settled the attempt; its outcome is unknown"
        );
    }
}

/// Says how an attempt ended.
pub(crate) fn report(
    endpoint: &'static str,
    holder: Holder,
    settlement: &Settlement,
    settled: Settled,
) {
    let outcome = settlement.outcome();
    match settled {
        Settled::Done => trace::report(endpoint, Some(&holder.id), outcome),
        Settled::Lost => tracing::warn!(
            target: crate::TARGET,
            endpoint,
            record = %holder.id.short(),
            outcome = %outcome,
            "the lease was lost before the attempt was settled; its answer went to its own client only"
        ),
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::record_id::RecordId;
    use crate::store::{Claim, Claimed, Entry, MemoryStore};
    use crate::testing::Fault::ErrBefore;
    use crate::testing::{FaultStore, Operation};

    const HOUR: Duration = Duration::from_secs(3600);

    /// One attempt whose record the store refuses so many times: the record that stands in the end,
    /// and how long that took.
    async fn refused(times: usize, lease: Duration) -> (Option<Entry>, Duration) {
        let store = FaultStore::new(MemoryStore::default());
        store.script(Operation::Complete, vec![ErrBefore; times]);
        let idem = Idempotency::builder().store(store).lease(lease).build();
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let claim = Claim::new(RecordId::from_bytes([1; 32]), fingerprint, lease, HOUR);
        let (id, owner) = (claim.id, claim.owner);
        let Ok(Claimed::Fresh { fence, .. }) = idem.store().claim(claim).await else {
            panic!("nobody else claims it");
        };
        let settler = Settler {
            endpoint: "place_trade",
            idem: idem.clone(),
            holder: Holder { id, owner, fence },
            held_until: Instant::now() + lease,
            runtime: None,
        };
        let begun = Instant::now();
        let record = Record::not_kept(fingerprint, StatusCode::CREATED);
        let settlement = Settlement::Complete { record, ttl: HOUR };
        settler.keep_trying(settlement).await;
        let entry = idem.store().look_up(id).await;
        (entry.expect("it does not fail"), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_refuses_is_asked_again_within_each_lease_and_not_all_the_time() {
        for (lease, pause) in [(30, 10), (300, 100), (60_000, 2_000)] {
            let [lease, pause] = [lease, pause].map(Duration::from_millis);
            let (entry, took) = refused(40, lease).await;
            assert!(matches!(entry, Some(Entry::Recorded { .. })), "{entry:?}");
            assert!((30 * pause..60 * pause).contains(&took), "{took:?}");
        }
    }
}
