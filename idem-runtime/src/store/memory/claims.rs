//! A claim that is in flight or lapsed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::budget::Cost;
use super::clock::Moment;
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::store::millis::bounded;
use crate::store::{Claim, Holder, Origin, Owner};

/// The bytes that a claim counts: its entry in a map that is half empty.
pub(super) const WEIGHT: usize = 2 * (size_of::<RecordId>() + size_of::<ClaimEntry>());

/// One claim.
#[derive(Debug)]
pub(super) struct ClaimEntry {
    pub(super) owner: Owner,
    pub(super) fence: u64,
    pub(super) attempt: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) leased_until: Moment,
    retention: Duration,
    changed: Option<Arc<Notify>>,
    pub(super) created_at: Moment,
    pub(super) origin: Origin,
    /// Whether the scope pays for the entry out of its share.
    pub(super) is_limited: bool,
}

impl ClaimEntry {
    pub(super) fn new(claim: &Claim, fence: u64, attempt: u32, now: Moment) -> Self {
        Self {
            owner: claim.owner,
            fence,
            attempt,
            fingerprint: claim.fingerprint,
            leased_until: now.after(bounded(claim.lease)),
            retention: bounded(claim.retention),
            changed: None,
            created_at: now,
            origin: claim.origin.clone(),
            is_limited: !claim.is_global,
        }
    }

    /// The same claim as a takeover of `held`, whose origin stays.
    pub(super) fn taking_over(mut self, held: &mut Self) -> Self {
        self.created_at = held.created_at;
        self.origin = std::mem::take(&mut held.origin);
        self.is_limited = held.is_limited;
        self
    }

    /// The cost of the entry of a new claim.
    pub(super) fn cost_of(claim: &Claim) -> Cost {
        Cost {
            bytes: WEIGHT + claim.origin.heap_bytes(),
            scope: (!claim.is_global).then(|| claim.id.scope_id()),
        }
    }

    pub(super) fn cost(&self, id: &RecordId) -> Cost {
        Cost {
            bytes: WEIGHT + self.origin.heap_bytes(),
            scope: self.is_limited.then(|| id.scope_id()),
        }
    }

    /// Whether the holder owns this claim. A claim past its retention has no holder, even while it
    /// is in the map.
    pub(super) fn is_held_by(&self, holder: Holder, now: Moment) -> bool {
        self.owner == holder.owner && self.fence == holder.fence && self.retained_until() > now
    }

    /// When the store may forget the claim: the end of its lease, and then the retention.
    pub(super) fn retained_until(&self) -> Moment {
        self.leased_until.after(self.retention)
    }

    /// The handle that wakes callers that wait for this claim to end.
    pub(super) fn changed(&mut self) -> Arc<Notify> {
        self.changed.get_or_insert_default().clone()
    }

    /// Those who wait for this claim to end.
    pub(super) fn take_waiting(&mut self) -> Option<Arc<Notify>> {
        self.changed.take()
    }

    pub(super) fn wake(&self) {
        if let Some(changed) = &self.changed {
            changed.notify_waiters();
        }
    }
}
