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
    /// Does nothing: the handler has committed its record, which has this length.
    Committed(u64),
    /// Looks for the record that the handler may have committed, and notes whether it is there.
    Confirm {
        found: Arc<AtomicBool>,
        /// The length of the record.
        bytes: u64,
        missing: Missing,
    },
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
    pub(crate) const fn without_run(attempt: u32) -> Self {
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
            Self::Committed(_) => StoreFuture::ready(Ok(Settled::Done)),
            Self::Confirm { found, missing, .. } => {
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

    /// The length of the record in bytes, when the attempt has left one.
    pub(super) fn recorded_bytes(&self) -> Option<u64> {
        match self {
            Self::Complete { record, .. } => Some(record.as_bytes().len() as u64),
            Self::Committed(bytes) => Some(*bytes),
            Self::Confirm { bytes, .. } => self.has_found().then_some(*bytes),
            Self::Release | Self::Abandon => None,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Complete { .. } | Self::Committed(_) => Outcome::Recorded,
            Self::Confirm { .. } if self.has_found() => Outcome::Recorded,
            Self::Release => Outcome::Released,
            Self::Abandon => Outcome::Unknown,
            Self::Confirm { missing, .. } => match missing {
                Missing::IsFree => Outcome::Released,
                Missing::IsUnknown => Outcome::Unknown,
            },
        }
    }

    /// Whether the store has the record that the handler has committed.
    fn has_found(&self) -> bool {
        matches!(self, Self::Confirm { found, .. } if found.load(Ordering::Acquire))
    }

    /// Whether the handler may have committed a record that the store has not shown.
    pub(super) fn is_unconfirmed(&self) -> bool {
        let may_have_committed = matches!(
            self,
            Self::Confirm {
                missing: Missing::IsUnknown,
                ..
            }
        );
        may_have_committed && !self.has_found()
    }

    /// Whether the settlement can free the key.
    pub(super) fn can_release(&self) -> bool {
        let is_free = matches!(
            self,
            Self::Confirm {
                missing: Missing::IsFree,
                ..
            }
        );
        is_free || matches!(self, Self::Release)
    }
}
