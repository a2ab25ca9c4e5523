//! Settles an attempt in the store, and retries when that fails.

use tokio::time::Instant;

use crate::attempt::heartbeat::Heartbeat;
use crate::attempt::orphans;
use crate::attempt::renewal::Leaseholder;
use crate::attempt::settlement::Settlement;
use crate::observe::{AttemptEnd, Outcome};
use crate::service::background::{self, Background};
use crate::service::backoff::Backoff;
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::service::unwritten::{Held, Late};
use crate::store::{Holder, Settled, StoreError, StoreFuture};
use crate::trace::{self, Event};

/// How the first try to settle an attempt ended. The response waits for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstTry {
    /// The response can be sent unchanged.
    Over,
    /// The store does not have the record yet.
    Unrecorded,
    /// The handler may have committed its record, and the store has not shown it.
    Unconfirmed,
    /// Another attempt has taken over.
    Overtaken,
}

/// Settles one attempt when the store did not reply immediately.
pub(crate) struct Settler {
    pub(crate) endpoint: &'static str,
    pub(crate) idem: Idempotency,
    pub(crate) holder: Holder,
    /// The number of the attempt.
    pub(crate) attempt: u32,
    pub(crate) heartbeat: Heartbeat,
    /// When the `ttl` ends, counted from the response.
    pub(crate) expires_at: Instant,
    /// Whether a try at the claim was given up and may still reach the store.
    pub(crate) has_stragglers: bool,
    /// `None` outside of a runtime. Then nothing is retried.
    pub(crate) background: Option<Background>,
}

impl Settler {
    /// Awaits the first reply of the store.
    pub(crate) async fn settle(
        mut self,
        settlement: Settlement,
        reply: StoreFuture<Settled>,
    ) -> FirstTry {
        let mut held = None;
        let settlement = if self.heartbeat.outlasts(self.idem.settings().store_timeout) {
            settlement
        } else {
            // The lease may lapse before the store replies. Then a retry could be granted the next
            // attempt.
            self.hold(settlement, &mut held)
        };
        // Even a lease that outlasts the store timeout may lapse, because nobody may poll this future.
        self.renew(&settlement);
        match self.idem.in_time(reply).await {
            Ok(settled) => self.conclude(&settlement, settled, held),
            Err(error) => self.try_again(settlement, held, &error),
        }
    }

    /// Finishes after the store has replied.
    pub(crate) fn conclude(
        self,
        settlement: &Settlement,
        settled: Settled,
        mut held: Option<Held>,
    ) -> FirstTry {
        if settled == Settled::Lost {
            let _ = self.hold(settlement.clone(), &mut held);
        }
        report(
            self.endpoint,
            &self.idem,
            self.holder,
            self.heartbeat.claimed_at(),
            settlement,
            settled,
        );
        if self.has_stragglers
            && settlement.can_release()
            && let Some(background) = &self.background
        {
            // The store would grant the straggler unnoticed.
            let Holder { id, owner, .. } = self.holder;
            let retention = self.expires_at.saturating_duration_since(Instant::now());
            let runtime = &background.runtime;
            orphans::look_for(&self.idem, id, owner, retention, 2, runtime);
        }
        if let (Settled::Lost, Some(held)) = (settled, held) {
            // The other claim may belong to this process, with a reply that is pending or was given
            // up.
            let window = self
                .idem
                .settings()
                .lease
                .saturating_add(self.idem.settings().store_timeout);
            held.overtaken(deadline::after(Instant::now(), window));
        }
        match settled {
            // The handler has responded as if it had committed, but the store has no record.
            Settled::Done if settlement.is_unconfirmed() => FirstTry::Unconfirmed,
            Settled::Done => FirstTry::Over,
            Settled::Lost => FirstTry::Overtaken,
        }
    }

    /// Retries in the background after a failure of the store. The response is not held back,
    /// because the handler has finished.
    pub(crate) fn try_again(
        self,
        settlement: Settlement,
        held: Option<Held>,
        error: &StoreError,
    ) -> FirstTry {
        let (first_try, message) = match settlement {
            Settlement::Complete { .. } => (
                FirstTry::Unrecorded,
                "a response could not be recorded in time; recording is retried until the ttl ends, \
                 and until it succeeds only this process replays the response",
            ),
            _ if settlement.is_unconfirmed() => (
                FirstTry::Unconfirmed,
                "the commit of a handler could not be confirmed in time; the store is asked again, and a retry \
                 gets the response if it was committed",
            ),
            _ => (
                FirstTry::Over,
                "an attempt could not be settled in time; settling is retried",
            ),
        };
        Event {
            endpoint: Some(self.endpoint),
            record: Some(&self.holder.id),
            outcome: Some(settlement.outcome()),
            error: Some(error),
        }
        .warn(message);
        if let (FirstTry::Unrecorded, Some(observing)) = (first_try, self.idem.observing()) {
            observing.report(&|observer| observer.unrecorded(self.endpoint));
        }
        self.keep_trying_in_background(settlement, held);
        first_try
    }

    fn keep_trying_in_background(mut self, settlement: Settlement, mut held: Option<Held>) {
        let settlement = self.hold(settlement, &mut held);
        self.renew(&settlement);
        if let Some(Background { runtime, span }) = self.background.clone() {
            let tracked = Some(self.idem.attempts().token());
            background::spawn(&runtime, span, tracked, self.keep_trying(settlement, held));
        }
    }

    /// Renews the lease until the store has the record, so that no other process takes over. A key
    /// that is about to be released needs no lease.
    fn renew(&mut self, settlement: &Settlement) {
        if let (Settlement::Complete { .. }, Some(background)) = (settlement, &self.background) {
            self.heartbeat.arm(background, &|| Leaseholder {
                endpoint: self.endpoint,
                idem: self.idem.clone(),
                holder: self.holder,
                attempt: None,
            });
        }
    }

    /// Makes this process replay the record, unless it already does.
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
            // After the end of the lease, a record can still be written or found.
            Settlement::Complete { .. } | Settlement::Release | Settlement::Confirm { .. } => {
                self.expires_at
            }
            // The end of the lease has the same effect as the call.
            Settlement::Abandon | Settlement::Committed(_) => self.heartbeat.held_until(),
        };
        let mut backoff = Backoff::new();
        loop {
            let next = deadline::after(Instant::now(), backoff.pause());
            tokio::time::sleep_until(next.min(give_up_at)).await;
            if next >= give_up_at {
                break;
            }
            if held.as_ref().is_some_and(|held| !held.is_there()) {
                // An operator has forgotten the key, or a later claim was settled with the record.
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
                "a key could not be released before its ttl ended; the key is free now"
            }
            _ => "an attempt could not be settled and is no longer retried; its outcome is unknown",
        };
        Event {
            endpoint: Some(self.endpoint),
            record: Some(&self.holder.id),
            outcome: Some(settlement.outcome()),
            ..Event::default()
        }
        .error(message);
        let outcome = match settlement {
            Settlement::Release => Outcome::Released,
            _ => Outcome::Unknown,
        };
        let claimed_at = self.heartbeat.claimed_at();
        observe_end(self.endpoint, &self.idem, claimed_at, outcome, None);
    }
}

/// Settles a claim that the store granted although this process holds the response of an earlier
/// attempt. Uses the record of that response. `attempt` is the number of the granted attempt.
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

/// Logs and reports how an attempt ended.
pub(crate) fn report(
    endpoint: &'static str,
    idem: &Idempotency,
    holder: Holder,
    claimed_at: Instant,
    settlement: &Settlement,
    settled: Settled,
) {
    match settled {
        Settled::Done => {
            let outcome = settlement.outcome();
            trace::ended(endpoint, &holder.id, outcome);
            let bytes = settlement.recorded_bytes();
            observe_end(endpoint, idem, claimed_at, outcome, bytes);
        }
        Settled::Lost => {
            Event {
                endpoint: Some(endpoint),
                record: Some(&holder.id),
                outcome: Some(Outcome::Overtaken),
                ..Event::default()
            }
            .info(
                "the lease was lost before the attempt was settled; its client gets the response of the \
                 attempt that has taken over, if the store has that response",
            );
            observe_end(endpoint, idem, claimed_at, Outcome::Overtaken, None);
        }
    }
}

fn observe_end(
    endpoint: &'static str,
    idem: &Idempotency,
    claimed_at: Instant,
    outcome: Outcome,
    recorded_bytes: Option<u64>,
) {
    if let Some(observing) = idem.observing() {
        observing.report(&|observer| {
            observer.attempt_ended(&AttemptEnd {
                endpoint,
                outcome,
                took: claimed_at.elapsed(),
                recorded_bytes,
            });
        });
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

    /// Runs one attempt whose record the store refuses `times` times, and whose lease is never
    /// renewed. Returns the final entry in the store and the time until the end.
    async fn refused(times: usize, ttl: Duration) -> (Option<Entry>, Duration) {
        let store = FaultStore::new(MemoryStore::default());
        store.script(Operation::Complete, vec![ErrBefore; times]);
        store.script(Operation::Renew, vec![ErrBefore; 1_000_000]);
        let idem = Idempotency::builder().store(store).lease(LEASE).build();
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let claim = Claim::new(RecordId::from_bytes([1; 32]), fingerprint, LEASE, HOUR);
        let (id, owner) = (claim.id, claim.owner);
        let Ok(Claimed::Fresh { fence, .. }) = idem.store().claim(claim).await else {
            panic!("no other claim exists");
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
        (entry.expect("the look-up succeeds"), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn writing_a_record_is_retried_with_pauses_long_after_its_lease() {
        let (entry, took) = refused(400, HOUR).await;
        assert!(took > 1_000 * LEASE, "{took:?}");
        assert!(took < Duration::from_secs(2 * 401), "{took:?}");
        let Some(Entry::Recorded { expires_in, .. }) = entry else {
            panic!("{entry:?}");
        };
        // The `ttl` counts from the response.
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

    /// A second attempt that ends late must not discard the record.
    #[tokio::test(start_paused = true)]
    async fn a_record_that_settles_a_later_attempt_belongs_to_that_attempt() {
        let store = FaultStore::new(MemoryStore::default());
        store.script(Operation::Complete, [ErrBefore; 3]);
        let idem = Idempotency::builder().store(store).build();
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let claim = Claim::new(RecordId::from_bytes([1; 32]), fingerprint, LEASE, HOUR);
        let (id, owner) = (claim.id, claim.owner);
        let Ok(Claimed::Fresh { fence, .. }) = idem.store().claim(claim).await else {
            panic!("no other claim exists");
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
