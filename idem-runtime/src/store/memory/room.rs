//! Frees room: removes what has expired, and evicts records.

use super::clock::Moment;
use super::queue::Due;
use super::records::{Records, Slot, StoredRecord};
use super::{Inner, OnFull};
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::observer::MEMORY;

/// How many times a claim of a scope that holds its share may purge expired records. Each time removes a few.
const MAX_PURGES: usize = 256;

impl Inner {
    /// Purges expired entries and then, with `OnFull::EvictOldest`, evicts the oldest records.
    /// Returns whether there is room for one more claim. Must be called without a shard lock.
    pub(super) fn make_room(&self, now: Moment) -> bool {
        while !self.budget.has_room() && self.purge(now) {}
        if !self.budget.has_room() {
            self.forget_past(now);
        }
        if self.on_full == OnFull::EvictOldest {
            let mut evicted = 0;
            while !self.budget.has_room() {
                let Some(oldest) = self.queue.pop_oldest() else {
                    break;
                };
                if self.remove_queued(oldest) {
                    self.budget.count_eviction();
                    evicted += 1;
                }
            }
            if evicted > 0 {
                self.observer
                    .report(&|observer| observer.evicted(MEMORY, evicted));
            }
        }
        self.budget.has_room()
    }

    /// Purges expired entries. Returns whether the scope may have one more claim. Must be called without a
    /// shard lock.
    pub(super) fn make_share(&self, scope: ScopeId, now: Moment) -> bool {
        let has_share = || self.budget.has_share(scope);
        // The rest of a long backlog is left to later claims, so that one claim does not block its thread.
        let mut rounds = 0..MAX_PURGES;
        while !has_share() && rounds.next().is_some() && self.purge(now) {}
        if !has_share() {
            self.forget_past(now);
        }
        has_share()
    }

    /// Removes the claims whose retention has passed.
    fn forget_past(&self, now: Moment) {
        self.shards
            .forget_past(now, |cost| self.budget.subtract(cost));
    }

    /// Returns the record under an id. Removes the record if it has expired.
    pub(super) fn live_record<'s>(
        &self,
        records: &'s mut Records,
        id: &RecordId,
        now: Moment,
    ) -> Option<&'s StoredRecord> {
        let slot = records.slot(id)?;
        if records.at(slot)?.expires_at <= now {
            self.remove_record(records, slot);
        }
        records.at(slot)
    }

    pub(super) fn remove_record(&self, records: &mut Records, slot: Slot) {
        if let Some(removed) = records.remove(slot) {
            self.budget.subtract(removed.cost());
        }
    }

    /// Purges a few expired records, so that each claim pays for the record it adds. Returns
    /// whether there were any. Must be called without a shard lock.
    pub(super) fn purge(&self, now: Moment) -> bool {
        let due = self.queue.pop_due(now);
        let any = !due.is_empty();
        for entry in due {
            self.remove_queued(entry);
        }
        any
    }

    /// Removes a few expired records, and the claims whose retention has passed. Returns how many records it
    /// removed.
    pub(super) fn remove_expired(&self) -> u64 {
        let now = self.clock.now();
        self.forget_past(now);
        loop {
            let due = self.queue.pop_due(now);
            if due.is_empty() {
                return 0;
            }
            // A queue entry may belong to a record that was replaced.
            let removed = due.into_iter().filter(|entry| self.remove_queued(*entry));
            let removed = removed.count() as u64;
            if removed > 0 {
                return removed;
            }
        }
    }

    /// Removes the record that a queue entry refers to, unless the record is gone or was replaced.
    pub(super) fn remove_queued(&self, due: Due) -> bool {
        // Without the lock, this could remove a new record that is being stored instead of the
        // expired record.
        let mut shard = self.shards.at(due.place.shard);
        let kept = shard.records.at(due.place.slot);
        let is_the_same = kept.is_some_and(|kept| {
            kept.expires_at == due.expires_at && kept.settled_at == due.settled_at
        });
        if is_the_same {
            self.remove_record(&mut shard.records, due.place.slot);
        }
        is_the_same
    }
}
