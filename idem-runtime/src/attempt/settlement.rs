//! What can become of an attempt.

use std::time::Duration;

use crate::service::idempotency::Idempotency;
use crate::store::{Holder, Record, Settled, StoreFuture};
use crate::trace::Outcome;

/// What became of an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Settlement {
    /// Its response is kept, or the note that there was one.
    Complete { record: Record, ttl: Duration },
    /// The key is free.
    Release,
    /// Nobody knows.
    Abandon,
}

impl Settlement {
    /// The handler did not run in this attempt. An earlier attempt may have, so the claim of a
    /// takeover is abandoned, not released.
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
