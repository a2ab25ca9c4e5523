//! The ways to settle an attempt.

use std::time::Duration;

use crate::service::idempotency::Idempotency;
use crate::store::{Holder, Record, Settled, StoreFuture};
use crate::trace::Outcome;

/// How an attempt is settled.
#[derive(Clone, Debug)]
pub(crate) enum Settlement {
    /// Records the response, or only that there was a response.
    Complete { record: Record, ttl: Duration },
    /// Frees the key.
    Release,
    /// Marks the outcome as unknown.
    Abandon,
}

impl Settlement {
    /// Returns how to settle a claim whose handler did not run. An earlier attempt may have run, so
    /// the claim of a takeover is abandoned, not released.
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

    pub(super) const fn outcome(&self) -> Outcome {
        match self {
            Self::Complete { .. } => Outcome::Recorded,
            Self::Release => Outcome::Released,
            Self::Abandon => Outcome::Unknown,
        }
    }
}
