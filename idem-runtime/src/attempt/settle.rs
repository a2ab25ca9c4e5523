//! Tells the store what became of an attempt, and tells it again when that fails.

use tokio::time::Instant;
use tracing::Instrument;

use crate::service::background::Background;
use crate::attempt::heartbeat::{Heartbeat, Leaseholder};
use crate::attempt::orphans;
use crate::attempt::settlement::Settlement;
use crate::service::backoff::Backoff;
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::service::unwritten::{Held, Late};
use crate::store::{Holder, Settled, StoreError, StoreFuture};
use crate::trace;

/// How the first try to settle an attempt ended, for the response that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstTry {
    /// The response may go out as it is.
    Over,
    /// The store does not have the record yet.
    Unrecorded,
    /// Another attempt has taken over.
    Overtaken,
}

/// Settles one attempt whose store did not answer at once.
pub(crate) struct Settler {
    pub(crate) endpoint: &'static str,
    pub(crate) idem: Idempotency,
    pub(crate) holder: Holder,
    /// The number of the attempt.
    pub(crate) attempt: u32,
    pub(crate) heartbeat: Heartbeat,
    /// When the `ttl` has passed, counted from the response.
    pub(crate) expires_at: Instant,
    /// Whether a try at the claim was given up, which may still arrive.
    pub(crate) has_stragglers: bool,
    /// `None` outside of a runtime. Then nothing is tried again.
    pub(crate) background: Option<Background>,
}

impl Settler {
    /// Awaits the store's first reply.
    pub(crate) async fn settle(
        mut self,
        settlement: Settlement,
        reply: StoreFuture<Settled>,
    ) -> FirstTry {
        let mut held = None;
        let settlement = if self.heartbeat.outlasts(self.idem.settings().store_timeout) {
            settlement
        } else {
            // The lease may lapse before the store replies, and a retry be granted the next attempt.
            self.hold(settlement, &mut held)
        };
        // Even a lease that outlasts the store timeout may lapse, because nobody may poll this future.
        self.renew(&settlement);
        match self.idem.in_time(reply).await {
            Ok(settled) => self.conclude(&settlement, settled, held),
            Err(error) => self.try_again(settlement, held, &error),
        }
    }

    /// The store has replied.
    pub(crate) fn conclude(
        self,
        settlement: &Settlement,
        settled: Settled,
        mut held: Option<Held>,
    ) -> FirstTry {
        if settled == Settled::Lost {
            let _ = self.hold(settlement.clone(), &mut held);
        }
        report(self.endpoint, self.holder, settlement, settled);
        if self.has_stragglers
            && let (Settlement::Release, Some(background)) = (settlement, &self.background)
        {
            // It would be granted, and nobody would know.
            let Holder { id, owner, .. } = self.holder;
            let retention = self.expires_at.saturating_duration_since(Instant::now());
            let runtime = &background.runtime;
            orphans::look_for(&self.idem, id, owner, retention, 2, runtime);
        }
        if let (Settled::Lost, Some(held)) = (settled, held) {
            // The claim may be one of this process, whose reply is under way or was given up.
            let window = self
                .idem
                .settings()
                .lease
                .saturating_add(self.idem.settings().store_timeout);
            held.overtaken(deadline::after(Instant::now(), window));
        }
        match settled {
            Settled::Done => FirstTry::Over,
            Settled::Lost => FirstTry::Overtaken,
        }
    }

    /// The store has failed. The rest goes on in the background: the work is done, and its client gets
    /// its response.
    pub(crate) fn try_again(
        self,
        settlement: Settlement,
        held: Option<Held>,
        error: &StoreError,
    ) -> FirstTry {
        let (first_try, message) = match settlement {
            Settlement::Complete { .. } => (
                FirstTry::Unrecorded,
                "a response could not be recorded in time; it is tried again until its ttl has \
                 passed, and until then this process alone replays it",
            ),
            Settlement::Release | Settlement::Abandon => (
                FirstTry::Over,
                "an attempt could not be settled in time; it is tried again",
            ),
        };
        tracing::error!(
            target: crate::trace::TARGET,
            endpoint = self.endpoint,
            record = %self.holder.id.short(),
            outcome = %settlement.outcome(),
            error = error as &dyn std::error::Error,
            "{message}"
        );
        self.keep_trying_in_background(settlement, held);
        first_try
    }

    fn keep_trying_in_background(mut self, settlement: Settlement, mut held: Option<Held>) {
        let settlement = self.hold(settlement, &mut held);
        self.renew(&settlement);
        if let Some(Background { runtime, span }) = self.background.clone() {
            let attempts = self.idem.attempts().clone();
            let trying = self.keep_trying(settlement, held).instrument(span);
            attempts.spawn_on(trying, &runtime);
        }
    }

    /// Renews the lease until the store has the record, so that no other process takes over. A key that is
    /// to be released needs no lease.
    fn renew(&mut self, settlement: &Settlement) {
        if let (Settlement::Complete { .. }, Some(background)) = (settlement, &self.background) {
            self.heartbeat.arm(background, || Leaseholder {
                endpoint: self.endpoint,
                idem: self.idem.clone(),
                holder: self.holder,
                attempt: None,
            });
        }
    }

    /// Has this process replay a record, unless it does so already.
    fn hold(&self, settlement: Settlement, held: &mut Option<Held>) -> Settlement {
        match settlement {
            Settlement::Complete { record, ttl } if held.is_none() => {
                let late = Late {
                    record,
                    attempt: self.attempt,
                    expires_at: self.expires_at,
                };
                let (entry, record) = Held::new(self.idem.unwritten(), self.holder.id, late);
                *held = Some(entry);
                Settlement::Complete { record, ttl }
            }
            settlement => settlement,
        }
    }

    async fn keep_trying(self, mut settlement: Settlement, held: Option<Held>) {
        let give_up_at = match settlement {
            Settlement::Complete { .. } | Settlement::Release => self.expires_at,
            // The end of the lease has the same effect.
            Settlement::Abandon => self.heartbeat.held_until(),
        };
        let mut backoff = Backoff::new();
        loop {
            let next = deadline::after(Instant::now(), backoff.pause());
            tokio::time::sleep_until(next.min(give_up_at)).await;
            if next >= give_up_at {
                break;
            }
            if held.as_ref().is_some_and(|held| !held.is_there()) {
                // Forgotten by an operator, or settled under a later claim.
                return;
            }
            if let Settlement::Complete { ttl, .. } = &mut settlement {
                *ttl = give_up_at.saturating_duration_since(Instant::now());
            }
            let reply = settlement.apply(&self.idem, self.holder);
            if let Ok(settled) = self.idem.in_time(reply).await {
                self.conclude(&settlement, settled, held);
                return;
            }
        }
        let message = match settlement {
            Settlement::Release => {
                "a key could not be released before its ttl had passed; the ttl has freed it"
            }
            Settlement::Complete { .. } | Settlement::Abandon => {
                "an attempt could not be settled while that mattered; its outcome is unknown"
            }
        };
        tracing::error!(
            target: crate::trace::TARGET,
            endpoint = self.endpoint,
            record = %self.holder.id.short(),
            outcome = %settlement.outcome(),
            "{message}"
        );
    }
}

/// Settles a claim that this process was granted although it holds the response of an earlier attempt,
/// with the record of that response. `attempt` is the number of the granted attempt.
pub(crate) fn settle_with(
    late: Late,
    attempt: u32,
    endpoint: &'static str,
    idem: &Idempotency,
    holder: Holder,
    asked_at: Instant,
) {
    let settler = Settler {
        endpoint,
        idem: idem.clone(),
        holder,
        attempt,
        heartbeat: Heartbeat::new(asked_at, idem.settings().lease),
        expires_at: late.expires_at,
        has_stragglers: false,
        background: Background::of_this_task(),
    };
    let settlement = Settlement::Complete {
        ttl: late.expires_at.saturating_duration_since(Instant::now()),
        record: late.record,
    };
    settler.keep_trying_in_background(settlement, None);
}

/// Reports how an attempt ended.
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
            target: crate::trace::TARGET,
            endpoint,
            record = %holder.id.short(),
            outcome = %outcome,
            "the lease was lost before the attempt was settled; its response went to its own client only"
        ),
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::request::fingerprint::Fingerprint;
    use crate::request::record_id::RecordId;
    use crate::store::{Claim, Claimed, Entry, MemoryStore, Record};
    use crate::testing::Fault::ErrBefore;
    use crate::testing::{FaultStore, Operation};

    const HOUR: Duration = Duration::from_secs(3600);
    const LEASE: Duration = Duration::from_millis(300);

    /// One attempt whose record the store refuses so many times, while it renews no lease either: what
    /// the store holds in the end, and how long that took.
    async fn refused(times: usize, ttl: Duration) -> (Option<Entry>, Duration) {
        let store = FaultStore::new(MemoryStore::default());
        store.script(Operation::Complete, vec![ErrBefore; times]);
        store.script(Operation::Renew, vec![ErrBefore; 1_000_000]);
        let idem = Idempotency::builder().store(store).lease(LEASE).build();
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let claim = Claim::new(RecordId::from_bytes([1; 32]), fingerprint, LEASE, HOUR);
        let (id, owner) = (claim.id, claim.owner);
        let Ok(Claimed::Fresh { fence, .. }) = idem.store().claim(claim).await else {
            panic!("nobody else claims it");
        };
        let settler = Settler {
            endpoint: "place_trade",
            idem: idem.clone(),
            holder: Holder { id, owner, fence },
            attempt: 1,
            heartbeat: Heartbeat::new(Instant::now(), LEASE),
            expires_at: Instant::now() + ttl,
            has_stragglers: false,
            background: Background::of_this_task(),
        };
        let begun = Instant::now();
        let record = Record::not_kept(fingerprint, StatusCode::CREATED);
        let settlement = Settlement::Complete { record, ttl };
        settler.keep_trying_in_background(settlement, None);
        assert!(idem.unwritten().find(&id).is_some());
        idem.drain(Duration::MAX).await;
        assert!(idem.unwritten().find(&id).is_none());
        let entry = idem.store().look_up(id).await;
        (entry.expect("it does not fail"), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_tried_far_beyond_its_lease_and_not_all_the_time() {
        let (entry, took) = refused(400, HOUR).await;
        assert!(took > 1_000 * LEASE, "{took:?}");
        assert!(took < Duration::from_secs(2 * 401), "{took:?}");
        let Some(Entry::Recorded { expires_in, .. }) = entry else {
            panic!("{entry:?}");
        };
        // The ttl counts from the response.
        let off = expires_in.abs_diff(HOUR.saturating_sub(took));
        assert!(
            off < Duration::from_millis(10),
            "{expires_in:?} after {took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_given_up_when_its_ttl_has_passed() {
        let ttl = Duration::from_secs(60);
        let (entry, took) = refused(1_000_000, ttl).await;
        assert!(matches!(entry, Some(Entry::Unknown { .. })), "{entry:?}");
        assert!(took >= ttl && took < ttl + LEASE, "{took:?}");
    }

    /// An attempt between the two that ends late must not discard the record.
    #[tokio::test(start_paused = true)]
    async fn a_record_that_settles_a_later_attempt_belongs_to_that_attempt() {
        let store = FaultStore::new(MemoryStore::default());
        store.script(Operation::Complete, [ErrBefore; 3]);
        let idem = Idempotency::builder().store(store).build();
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let claim = Claim::new(RecordId::from_bytes([1; 32]), fingerprint, LEASE, HOUR);
        let (id, owner) = (claim.id, claim.owner);
        let Ok(Claimed::Fresh { fence, .. }) = idem.store().claim(claim).await else {
            panic!("nobody else claims it");
        };
        let late = |attempt| Late {
            record: Record::not_kept(fingerprint, StatusCode::CREATED),
            attempt,
            expires_at: Instant::now() + HOUR,
        };
        let holder = Holder { id, owner, fence };
        settle_with(late(1), 3, "place_trade", &idem, holder, Instant::now());
        let (second, _) = Held::new(idem.unwritten(), id, late(2));
        assert!(!second.is_there());
        assert_eq!(idem.drain(Duration::MAX).await, 0);
        let entry = idem.store().look_up(id).await;
        assert!(
            matches!(entry, Ok(Some(Entry::Recorded { .. }))),
            "{entry:?}"
        );
    }
}
