//! Claims the key in the store. Repeats the claim when the reply is lost or the key is in flight.

use std::mem;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::attempt::handling::BoxFuture;
use crate::attempt::orphans;
use crate::attempt::settle;
use crate::claim::decision::Decision;
use crate::observe::{Outcome, Waited};
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::service::backoff::jittered;
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::service::permits::Permit;
use crate::settings::policy::{InFlight, Policy};
use crate::store::{
    Claim, Claimed, DecodeError, Holder, Origin, Owner, Settled, StoreError, StoreFuture,
};

/// How often a claim is tried while the store returns transient errors.
const TRIES: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// The first and the longest pause of a waiting request whose store cannot wake it.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_millis(500);

/// A decision, and the owner of the claim if the handler is to run.
#[derive(Debug)]
pub(crate) struct ClaimReply {
    pub(crate) decision: Decision,
    pub(crate) owner: Owner,
    /// Read before the claim was sent, so that the lease never ends later here than in the store.
    pub(crate) asked_at: Instant,
    /// Whether a try at the claim was given up and may still reach the store.
    pub(crate) has_stragglers: bool,
    /// Only for a request that runs.
    pub(crate) permit: Option<Permit>,
}

impl ClaimReply {
    /// A decision for which no claim was sent. It must not be `Decision::Run`.
    pub(crate) fn without_claim(decision: Decision) -> Self {
        Self {
            decision,
            owner: Owner::unique(),
            asked_at: Instant::now(),
            has_stragglers: false,
            permit: None,
        }
    }
}

/// Claims the key of one request.
#[derive(Debug)]
pub(crate) struct StoreClaim {
    endpoint: &'static str,
    claim: Claim,
    /// The deadline for waiting until the first request ends. `None` if the endpoint does not wait.
    give_up_at: Option<Instant>,
}

/// The reply of the store to a claim.
pub(crate) type Reply = Result<ClaimReply, ClaimError>;

/// Why a key could not be claimed.
#[derive(Debug)]
pub(crate) struct ClaimError {
    pub(crate) error: StoreError,
    /// Whether the store has reported before that the key is in flight.
    pub(crate) is_in_flight: bool,
}

impl From<StoreError> for ClaimError {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            is_in_flight: false,
        }
    }
}

impl StoreClaim {
    pub(crate) fn new(
        policy: &Policy,
        idem: &Idempotency,
        id: RecordId,
        fingerprint: Fingerprint,
        origin: Origin,
        is_global: bool,
    ) -> Self {
        let give_up_at = match policy.in_flight {
            InFlight::Reject => None,
            InFlight::Wait(patience) => Some(deadline::after(Instant::now(), patience)),
        };
        let claim = Claim {
            id,
            fingerprint,
            owner: Owner::unique(),
            lease: idem.settings().lease,
            retention: policy.ttl,
            on_unknown: policy.on_unknown,
            wait: give_up_at.is_some(),
            origin,
            is_global,
            is_transactional: policy.transactional,
        };
        Self {
            endpoint: policy.endpoint,
            claim,
            give_up_at,
        }
    }

    /// Sends the claim. Returns the reply if the store replies immediately and the request does not
    /// have to wait for the first request. Otherwise returns a future.
    pub(crate) fn ask(self, idem: &Idempotency) -> Result<Reply, BoxFuture<Reply>> {
        let at = Instant::now();
        let permit = idem.permits().take();
        if permit.is_none() {
            return Ok(Ok(self.reply(Decision::Busy, at, None)));
        }
        if let Some(decision) = self.unwritten(idem) {
            return Ok(Ok(self.reply(decision, at, None)));
        }
        let pending = match idem.store().claim(self.claim.clone()).try_now() {
            Ok(Ok(claimed @ Claimed::InFlight { .. })) if self.claim.wait => {
                StoreFuture::ready(Ok(claimed))
            }
            Ok(claimed) => return Ok(self.conclude(idem, claimed, at, permit)),
            Err(pending) => pending,
        };
        let idem = idem.clone();
        Err(Box::pin(async move {
            self.wait(&idem, pending, at, permit).await
        }))
    }

    /// Awaits the reply of the store. If the endpoint waits, also awaits the end of the first
    /// request.
    ///
    /// If this future is dropped during a call to the store, a background task settles the claim
    /// that the store may have granted. If it is dropped between two calls, that happens only if an
    /// earlier try at the claim was given up.
    async fn wait(
        self,
        idem: &Idempotency,
        first: StoreFuture<Claimed>,
        mut at: Instant,
        mut permit: Option<Permit>,
    ) -> Reply {
        let mut stragglers = None;
        let mut claimed = self
            .reply_in_time(idem, first, &mut at, &mut stragglers)
            .await;
        let mut look_again = FIRST_LOOK;
        let mut waits_since = None;
        loop {
            let (give_up_at, lease_left, changed) = match (self.give_up_at, claimed) {
                (
                    Some(give_up_at),
                    Ok(Claimed::InFlight {
                        fingerprint,
                        lease_left,
                        changed,
                    }),
                ) if at < give_up_at
                    && fingerprint == self.claim.fingerprint
                    && self.unwritten(idem).is_none() =>
                {
                    (give_up_at, lease_left, changed)
                }
                (_, claimed) => {
                    let is_recorded = is_recorded(idem, &claimed);
                    let reply = self.conclude(idem, claimed, at, permit);
                    self.observe(idem, waits_since, &reply);
                    let mut reply = reply.map_err(|failed| ClaimError {
                        is_in_flight: waits_since.is_some(),
                        ..failed
                    })?;
                    reply.has_stragglers = stragglers.is_some();
                    let runs = matches!(reply.decision, Decision::Run { .. });
                    // A request that runs has its own claim, and its attempt handles the stragglers.
                    if (runs || is_recorded)
                        && let Some(stragglers) = &mut stragglers
                    {
                        stragglers.disarm();
                    }
                    return Ok(reply);
                }
            };
            waits_since.get_or_insert(at);
            // A request that waits for the first one does not run.
            drop(permit.take());
            let until = give_up_at.min(deadline::after(at, lease_left));
            if let Some(changed) = changed {
                // After a wake-up and after a timeout, the store is asked again and decides.
                let _ = tokio::time::timeout_at(until, changed.wait()).await;
            } else {
                tokio::time::sleep_until(until.min(Instant::now() + jittered(look_again))).await;
                look_again = (look_again * 2).min(LAST_LOOK);
            }
            permit = idem.permits().take_until(give_up_at).await;
            at = Instant::now();
            if permit.is_none() {
                let busy = Ok(self.reply(Decision::Busy, at, None));
                self.observe(idem, waits_since, &busy);
                return busy;
            }
            let again = idem.store().claim(self.claim.clone());
            claimed = self
                .reply_in_time(idem, again, &mut at, &mut stragglers)
                .await;
        }
    }

    /// Reports how long the request has waited for another request, if it has.
    fn observe(&self, idem: &Idempotency, waits_since: Option<Instant>, reply: &Reply) {
        let (Some(observing), Some(since)) = (idem.observing(), waits_since) else {
            return;
        };
        let outcome = match reply {
            Ok(reply) => reply.decision.outcome(),
            Err(_) => Outcome::StoreError,
        };
        observing.report(&|observer| {
            observer.waited(&Waited {
                endpoint: self.endpoint,
                outcome,
                waited: since.elapsed(),
            });
        });
    }

    /// Awaits the reply to a claim that was sent at `asked_at`. Sends the claim again when the
    /// reply is lost.
    ///
    /// Leaves a guard in `stragglers` when a try was given up, because the store may still grant
    /// that try.
    async fn reply_in_time(
        &self,
        idem: &Idempotency,
        first: StoreFuture<Claimed>,
        asked_at: &mut Instant,
        stragglers: &mut Option<UnconfirmedClaim>,
    ) -> Result<Claimed, StoreError> {
        let pending = match first.try_now() {
            Ok(reply) => return reply,
            Err(pending) => pending,
        };
        // The store may return the claim that an earlier try was granted, whose lease began before `asked_at`.
        let mut may_be_older = stragglers.is_some();
        let mut unconfirmed = match stragglers.take() {
            Some(mut earlier) => {
                earlier.sent += 1;
                earlier
            }
            None => UnconfirmedClaim::new(idem, &self.claim),
        };
        let mut claimed = reply_to(&self.claim, idem, pending, &mut unconfirmed).await;
        let mut renewals = 0;
        // After the lease has lapsed, the store may have granted the next attempt to a retry. So
        // this attempt runs only if the store confirms that it still holds the claim.
        while let Ok(Claimed::Fresh { fence, attempt }) = claimed
            && (mem::take(&mut may_be_older) || self.has_lapsed(idem, attempt, *asked_at))
        {
            if renewals == TRIES {
                claimed = Err(StoreError::TimedOut);
                break;
            }
            renewals += 1;
            *asked_at = Instant::now();
            let Claim { id, owner, .. } = self.claim;
            let renewal = idem
                .store()
                .renew(Holder { id, owner, fence }, self.claim.lease);
            match idem.in_time(renewal).await {
                Ok(Settled::Done) => {}
                Ok(Settled::Lost) => {
                    *asked_at = Instant::now();
                    unconfirmed.sent += 1;
                    let again = idem.store().claim(self.claim.clone());
                    claimed = reply_to(&self.claim, idem, again, &mut unconfirmed).await;
                }
                Err(error) => claimed = Err(error),
            }
        }
        if claimed.is_ok() {
            if unconfirmed.gave_up {
                *stragglers = Some(unconfirmed);
            } else {
                unconfirmed.disarm();
            }
        }
        claimed
    }

    /// Whether the lease of a granted claim has lapsed before the handler could start. If this
    /// process holds a record, the record replaces the run, and the lease does not matter.
    fn has_lapsed(&self, idem: &Idempotency, attempt: u32, asked_at: Instant) -> bool {
        Instant::now() >= deadline::after(asked_at, self.claim.lease)
            && idem
                .unwritten()
                .look_for(&self.claim.id, attempt, self.claim.fingerprint)
                .is_none()
    }

    /// Decides from the reply of the store. A record that only this process holds takes precedence,
    /// unless the store returned a record too.
    fn conclude(
        &self,
        idem: &Idempotency,
        claimed: Result<Claimed, StoreError>,
        asked_at: Instant,
        permit: Option<Permit>,
    ) -> Reply {
        let unwritten = match claimed {
            // Only `Sealed` can open the record.
            Ok(Claimed::Recorded { record, .. }) if record.is_sealed() => {
                return Err(StoreError::Undecodable(DecodeError::Sealed).into());
            }
            Ok(Claimed::Recorded { .. }) => None,
            Ok(Claimed::Fresh { fence, attempt }) => {
                self.settle_instead(idem, fence, attempt, asked_at)
            }
            _ => self.unwritten(idem),
        };
        let decision = match unwritten {
            Some(decision) => decision,
            None => Decision::of(claimed?, self.claim.fingerprint),
        };
        Ok(self.reply(decision, asked_at, permit))
    }

    /// Returns the decision for a request whose record this process holds.
    fn unwritten(&self, idem: &Idempotency) -> Option<Decision> {
        let record = idem.unwritten().find(&self.claim.id)?;
        Some(Decision::of_unwritten(record, self.claim.fingerprint))
    }

    /// Settles a claim that was just granted, when this process holds the response of the previous
    /// attempt. The handler of that attempt has run, but its lease lapsed before the store had the
    /// record.
    fn settle_instead(
        &self,
        idem: &Idempotency,
        fence: u64,
        attempt: u32,
        asked_at: Instant,
    ) -> Option<Decision> {
        let Claim {
            id,
            owner,
            fingerprint,
            ..
        } = self.claim;
        let late = idem.unwritten().take(&id, attempt, fingerprint)?;
        let decision = Decision::of_unwritten(late.record.clone(), fingerprint);
        let holder = Holder { id, owner, fence };
        settle::settle_with(late, attempt, self.endpoint, idem, holder, asked_at);
        Some(decision)
    }

    /// Keeps the permit only for a request that runs.
    fn reply(&self, decision: Decision, asked_at: Instant, permit: Option<Permit>) -> ClaimReply {
        ClaimReply {
            permit: permit.filter(|_| matches!(decision, Decision::Run { .. })),
            decision,
            owner: self.claim.owner,
            asked_at,
            has_stragglers: false,
        }
    }
}

/// Whether the store has a record that outlives every straggler of a claim, so that it grants none of them.
fn is_recorded(idem: &Idempotency, claimed: &Result<Claimed, StoreError>) -> bool {
    let settings = idem.settings();
    let window = settings.lease.saturating_add(settings.store_timeout);
    matches!(claimed, Ok(Claimed::Recorded { expires_in, .. }) if *expires_in >= window)
}

/// Awaits the reply to one claim, and sends the claim again when the reply is lost.
///
/// All tries together take no longer than `store_timeout`. Each try may use half of the time that
/// is left, so that a try without a reply leaves time for the next try. The store recognizes a
/// repeated claim by its owner.
async fn reply_to(
    claim: &Claim,
    idem: &Idempotency,
    first: StoreFuture<Claimed>,
    unconfirmed: &mut UnconfirmedClaim,
) -> Result<Claimed, StoreError> {
    let deadline = deadline::after(Instant::now(), idem.settings().store_timeout);
    let mut claimed = half_until(deadline, first).await;
    for retry in 1..TRIES {
        if matches!(
            claimed,
            Ok(_) | Err(StoreError::Undecodable(_) | StoreError::Busy)
        ) {
            break;
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + jittered(FIRST_BACKOFF * retry)))
            .await;
        unconfirmed.sent += 1;
        unconfirmed.gave_up = true;
        claimed = half_until(deadline, idem.store().claim(claim.clone())).await;
    }
    claimed
}

async fn half_until(
    deadline: Instant,
    claiming: impl Future<Output = Result<Claimed, StoreError>>,
) -> Result<Claimed, StoreError> {
    let now = Instant::now();
    let half = deadline.saturating_duration_since(now) / 2;
    tokio::time::timeout_at(now + half, claiming)
        .await
        .unwrap_or(Err(StoreError::TimedOut))
}

/// A claim that the store may have granted although its sender received no reply. When this guard
/// is dropped, the claim is looked up and settled, because nothing ran under it.
struct UnconfirmedClaim {
    claim: Option<(Idempotency, Claim)>,
    /// How often the claim was sent.
    sent: u32,
    /// Whether a try was given up. Such a try may reach the store after the reply to a later try.
    gave_up: bool,
    runtime: Handle,
}

impl UnconfirmedClaim {
    fn new(idem: &Idempotency, claim: &Claim) -> Self {
        Self {
            claim: Some((idem.clone(), claim.clone())),
            sent: 1,
            gave_up: false,
            runtime: Handle::current(),
        }
    }

    fn disarm(&mut self) {
        self.claim = None;
    }
}

impl Drop for UnconfirmedClaim {
    fn drop(&mut self) {
        let Some((idem, claim)) = self.claim.take() else {
            return;
        };
        let Claim { id, owner, .. } = claim;
        orphans::look_for(&idem, id, owner, claim.retention, self.sent, &self.runtime);
    }
}
