//! The ways to settle an attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::service::idempotency::Idempotency;
use crate::store::{CommitState, Holder, Record, Settled, StoreFuture};
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
    /// Does nothing: the handler has committed its record.
    Committed,
    /// Looks for the record that the handler may have committed. Without a record, marks the outcome as
    /// unknown: the handler's transaction may still be committed. Contains whether the record was found.
    Confirm(Arc<AtomicBool>),
    /// Frees the key of an attempt that was overtaken. The record of the other attempt stays.
    Yield,
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
            Self::Committed => StoreFuture::ready(Ok(Settled::Done)),
            Self::Confirm(found) => {
                let (store, found) = (idem.store().clone(), found.clone());
                StoreFuture::new(async move {
                    match store.commit_state(holder).await? {
                        CommitState::Mine => {
                            found.store(true, Ordering::Release);
                            Ok(Settled::Done)
                        }
                        CommitState::Others => Ok(Settled::Lost),
                        CommitState::Held | CommitState::Gone => store.abandon(holder).await,
                    }
                })
            }
            Self::Yield => idem.store().release(holder).map(|_| Settled::Lost),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Complete { .. } | Self::Committed => Outcome::Recorded,
            Self::Release | Self::Yield => Outcome::Released,
            Self::Confirm(found) if found.load(Ordering::Acquire) => Outcome::Recorded,
            Self::Abandon | Self::Confirm(_) => Outcome::Unknown,
        }
    }
}
