//! The ways to settle an attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::observe::Outcome;
use crate::service::idempotency::Idempotency;
use crate::store::{CommitState, Holder, Record, Settled, StoreFuture};

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
    /// Looks for the record that the handler may have committed, and notes whether it is there.
    Confirm(Arc<AtomicBool>, Missing),
}

/// How an attempt is settled when its handler has tried to record a response, and the store has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The transaction may still be committed, so the outcome is unknown.
    IsUnknown,
    /// The transaction was refused, so the key is free.
    IsFree,
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
            Self::Confirm(found, missing) => {
                let (store, found, missing) = (idem.store().clone(), found.clone(), *missing);
                StoreFuture::new(async move {
                    match store.commit_state(holder).await? {
                        CommitState::Mine => {
                            found.store(true, Ordering::Release);
                            Ok(Settled::Done)
                        }
                        CommitState::Others => Ok(Settled::Lost),
                        CommitState::Held | CommitState::Gone => match missing {
                            Missing::IsUnknown => store.abandon(holder).await,
                            Missing::IsFree => store.release(holder).await,
                        },
                    }
                })
            }
        }
    }

    /// The length of the record in bytes, when the settlement writes one.
    pub(super) fn recorded_bytes(&self) -> Option<u64> {
        match self {
            Self::Complete { record, .. } => Some(record.as_bytes().len() as u64),
            _ => None,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Complete { .. } | Self::Committed => Outcome::Recorded,
            Self::Confirm(found, _) if found.load(Ordering::Acquire) => Outcome::Recorded,
            Self::Release | Self::Confirm(_, Missing::IsFree) => Outcome::Released,
            Self::Abandon | Self::Confirm(_, Missing::IsUnknown) => Outcome::Unknown,
        }
    }

    /// Whether the settlement can free the key.
    pub(super) fn can_release(&self) -> bool {
        matches!(self, Self::Release | Self::Confirm(_, Missing::IsFree))
    }
}
