//! Counts the bytes that the memory store uses, and knows their limit.

use super::shares::Shares;
use super::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::request::scope_id::ScopeId;

/// Counts the bytes that the memory store uses, and knows their limit.
///
/// The counters need no ordering, because each transition happens under its shard's lock.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
    /// `None` when every scope may fill the store.
    shares: Option<Shares>,
    evicted: AtomicU64,
}

/// What an entry takes, and which scope pays for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) bytes: usize,
    /// `None` for a scope that has no share of its own.
    pub(super) scope: Option<ScopeId>,
}

/// Why there is no room for a new claim.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoRoom {
    /// The store is full.
    Store,
    /// The scope holds its share.
    Share,
}

impl Budget {
    /// `max_share` is the part of `max` that one scope may hold.
    pub(super) fn new(max: usize, max_share: f64) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
            shares: (max_share < 1.0).then(|| Shares::new(part(max, max_share))),
            evicted: AtomicU64::new(0),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.max
    }

    /// Whether a scope may have one more claim.
    pub(super) fn has_share(&self, scope: ScopeId) -> bool {
        let shares = self.shares.as_ref();
        shares.is_none_or(|shares| shares.has_room(scope))
    }

    pub(super) fn can_ever_hold(&self, bytes: usize) -> bool {
        bytes <= self.max
    }

    /// Adds a new claim, if there is room.
    pub(super) fn take(&self, cost: Cost) -> Result<(), NoRoom> {
        if !self.has_room() {
            return Err(NoRoom::Store);
        }
        if let (Some(shares), Some(scope)) = (&self.shares, cost.scope)
            && !shares.take(scope, cost.bytes)
        {
            return Err(NoRoom::Share);
        }
        self.used.fetch_add(cost.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// An entry takes the place of another entry of the same id.
    pub(super) fn replace(&self, old: Cost, new: Cost) {
        // Adds and subtracts in one step, because the counter wraps around.
        let difference = new.bytes.wrapping_sub(old.bytes);
        self.used.fetch_add(difference, Ordering::Relaxed);
        if let (Some(shares), Some(scope)) = (&self.shares, old.scope) {
            shares.resize(scope, old.bytes, new.bytes);
        }
    }

    pub(super) fn subtract(&self, cost: Cost) {
        self.used.fetch_sub(cost.bytes, Ordering::Relaxed);
        if let (Some(shares), Some(scope)) = (&self.shares, cost.scope) {
            shares.subtract(scope, cost.bytes);
        }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Counts an evicted record, and warns each time the count has doubled.
    pub(super) fn count_eviction(&self) {
        let evicted = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
        if evicted.is_power_of_two() {
            tracing::warn!(
                target: crate::trace::TARGET,
                evicted,
                "the memory store is full and evicts its oldest records; a retry of an evicted one runs the handler again"
            );
        }
    }

    #[cfg(test)]
    pub(super) fn scopes(&self) -> usize {
        self.shares.as_ref().map_or(0, Shares::len)
    }
}

/// A part of the bytes: a number from 0 to 1.
fn part(bytes: usize, part: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a part of a size needs no precision, and the part is not negative"
    )]
    let part = (bytes as f64 * part.max(0.0)) as usize;
    part
}
