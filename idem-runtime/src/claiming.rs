//! Asks the store who runs: again when its answer is lost, and later when the key is in flight.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::decision::Decision;
use crate::fingerprint::Fingerprint;
use crate::idempotency::Idempotency;
use crate::policy::{InFlight, Policy};
use crate::record_id::RecordId;
use crate::settling::Settlement;
use crate::store::{Claim, Claimed, Holder, Owner, StoreError, StoreFuture};

/// Tries at one claim, as long as the store errs in ways that pass.
const TRIES: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// How a waiter looks again where the store cannot wake it.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_millis(500);

/// A decision, and who holds the claim if it is to run.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) decision: Decision,
    pub(crate) owner: Owner,
    /// Taken before the store was asked, so that the lease ends no later here than there.
    pub(crate) asked_at: Instant,
}

/// Asks the store for one request's claim.
#[derive(Debug)]
pub(crate) struct Claiming {
    claim: Claim,
    /// Until when a first request that still runs is waited for, where the endpoint says so.
    give_up_at: Option<Instant>,
}

/// The store's first answer, which is awaited.
#[derive(Debug)]
pub(crate) struct Asked {
    answer: StoreFuture<Claimed>,
    at: Instant,
}

impl Claiming {
    pub(crate) fn new(
        policy: &Policy,
        idem: &Idempotency,
        id: RecordId,
        fingerprint: Fingerprint,
    ) -> Self {
        let give_up_at = match policy.in_flight {
            InFlight::Reject => None,
            InFlight::Wait(patience) => Some(Instant::now() + patience),
        };
        let claim = Claim {
            id,
            fingerprint,
            owner: Owner::unique(),
            lease: idem.lease(),
            retention: policy.ttl,
            on_unknown: policy.on_unknown,
            wait: give_up_at.is_some(),
        };
        Self { claim, give_up_at }
    }

    /// Asks the store; gives the verdict where the store answers at once, and nobody is waited for.
    pub(crate) fn ask(
        &self,
        idem: &Idempotency,
    ) -> Result<Result<Verdict, StoreError>, Box<Asked>> {
        let at = Instant::now();
        match idem.store().claim(self.claim.clone()).try_now() {
            Ok(Ok(claimed @ Claimed::InFlight { .. })) if self.claim.wait => {
                let answer = StoreFuture::ready(Ok(claimed));
                Err(Box::new(Asked { answer, at }))
            }
            Ok(answer) => Ok(answer.map(|claimed| self.verdict(claimed, at))),
            Err(answer) => Err(Box::new(Asked { answer, at })),
        }
    }

    /// Awaits the store, and a first request that still runs where the endpoint says so.
    ///
    /// Dropped while the store is asked, it gives back in the background what it may have claimed;
    /// dropped while it waits, it changes nothing.
    pub(crate) async fn settle(
        self,
        idem: &Idempotency,
        asked: Box<Asked>,
    ) -> Result<Verdict, StoreError> {
        let Asked { answer, mut at } = *asked;
        let mut claimed = answer_to(&self.claim, idem, answer).await?;
        let mut look_again = FIRST_LOOK;
        loop {
            let (give_up_at, lease_left, changed) = match (self.give_up_at, claimed) {
                (
                    Some(give_up_at),
                    Claimed::InFlight {
                        fingerprint,
                        lease_left,
                        changed,
                    },
                ) if at < give_up_at && fingerprint == self.claim.fingerprint => {
                    (give_up_at, lease_left, changed)
                }
                (_, claimed) => return Ok(self.verdict(claimed, at)),
            };
            let until = give_up_at.min(at + lease_left);
            if let Some(changed) = changed {
                // Either way the store is asked again, and has the last word.
                let _ = tokio::time::timeout_at(until, changed.wait()).await;
            } else {
                tokio::time::sleep_until(until.min(Instant::now() + jittered(look_again))).await;
                look_again = (look_again * 2).min(LAST_LOOK);
            }
            at = Instant::now();
            claimed = answer_to(&self.claim, idem, idem.store().claim(self.claim.clone())).await?;
        }
    }

    fn verdict(&self, claimed: Claimed, asked_at: Instant) -> Verdict {
        Verdict {
            decision: Decision::of(claimed, self.claim.fingerprint),
            owner: self.claim.owner,
            asked_at,
        }
    }
}

/// One claim, asked again when its answer is lost.
///
/// All tries together take no longer than the service gives the store for one answer; each may use
/// half of what is left, so that a try whose answer never comes leaves time for the next, which
/// recognises its own claim.
async fn answer_to(
    claim: &Claim,
    idem: &Idempotency,
    first: StoreFuture<Claimed>,
) -> Result<Claimed, StoreError> {
    let pending = match first.try_now() {
        Ok(answer) => return answer,
        Err(pending) => pending,
    };
    let mut unanswered = Unanswered::new(idem, claim);
    let deadline = Instant::now() + idem.store_timeout();
    let mut answer = half_until(deadline, pending).await;
    for retry in 1..TRIES {
        if matches!(answer, Ok(_) | Err(StoreError::Undecodable(_))) {
            break;
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + jittered(FIRST_BACKOFF * retry)))
            .await;
        answer = half_until(deadline, idem.store().claim(claim.clone())).await;
    }
    if answer.is_ok() {
        unanswered.disarm();
    }
    answer
}

async fn half_until(
    deadline: Instant,
    answer: impl Future<Output = Result<Claimed, StoreError>>,
) -> Result<Claimed, StoreError> {
    let now = Instant::now();
    let half = deadline.saturating_duration_since(now) / 2;
    tokio::time::timeout_at(now + half, answer)
        .await
        .unwrap_or(Err(StoreError::TimedOut))
}

/// Somewhere between half of `pause` and the whole, so that waiters do not march in step.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0) % 1024;
    let share = u32::try_from(random).unwrap_or_default();
    pause / 2 + pause * share / 2048
}

/// A claim that the store may have granted without its claimer knowing. Its lease would end it; this
/// gives it back at once, since nothing ran under it.
struct Unanswered {
    claim: Option<(Idempotency, Claim)>,
    runtime: Handle,
}

impl Unanswered {
    fn new(idem: &Idempotency, claim: &Claim) -> Self {
        Self {
            claim: Some((idem.clone(), claim.clone())),
            runtime: Handle::current(),
        }
    }

    fn disarm(&mut self) {
        self.claim = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some((idem, claim)) = self.claim.take() else {
            return;
        };
        self.runtime.spawn(async move {
            let (id, owner) = (claim.id, claim.owner);
            let answer = idem.in_time(idem.store().claim(claim)).await;
            if let Ok(Claimed::Fresh { fence, attempt }) = answer {
                let holder = Holder { id, owner, fence };
                let given_back = Settlement::give_back(attempt).apply(&idem, holder);
                // Where this fails too, the lease ends it.
                let _ = idem.in_time(given_back).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pauses_are_alike() {
        let pause = Duration::from_millis(500);
        let pauses: Vec<_> = (0..100).map(|_| jittered(pause)).collect();
        assert!(pauses.iter().all(|it| (pause / 2..pause).contains(it)));
        let mut shares = pauses.clone();
        shares.sort();
        shares.dedup();
        // Of 1024 that there are, a few may be drawn twice.
        assert!(shares.len() > 50, "{shares:?}");
    }
}
