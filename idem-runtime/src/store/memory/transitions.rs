//! The transitions of a claim and its record, each under the lock of one shard.

use std::collections::hash_map;
use std::time::Duration;

use super::Inner;
use super::budget::NoRoom;
use super::claims::ClaimEntry;
use super::clock::Moment;
use super::queue::Place;
use super::records::StoredRecord;
use super::shards::{Shard, Shards};
use crate::request::record_id::RecordId;
use crate::settings::policy::OnUnknown;
use crate::store::millis::bounded;
use crate::store::{Changed, Claim, Claimed, Entry, Holder, Record, Settled};

impl Inner {
    pub(super) fn claim(&self, claim: &Claim) -> Claimed {
        loop {
            let mut shard = self.shards.of(&claim.id);
            // Every transition reads the clock under the lock. With an earlier reading, a lease
            // that had already lapsed could look alive after its holder abandoned it.
            let now = self.clock.now();
            let claimed = self.try_claim(&mut shard, claim, now);
            drop(shard);
            match claimed {
                Ok(claimed) => {
                    if matches!(claimed, Claimed::Fresh { .. }) {
                        self.purge(now);
                        self.fill.report(&self.observer, &self.budget, now);
                    }
                    return claimed;
                }
                Err(NoRoom::Store) if self.make_room(now) => {}
                Err(NoRoom::Store) => {
                    self.fill.report(&self.observer, &self.budget, now);
                    return Claimed::Full;
                }
                Err(NoRoom::Share) if self.make_share(claim.id.scope_id(), now) => {}
                Err(NoRoom::Share) => return Claimed::OverShare,
            }
        }
    }

    /// Claims the id.
    fn try_claim(&self, shard: &mut Shard, claim: &Claim, now: Moment) -> Result<Claimed, NoRoom> {
        let entry = |fence, attempt| ClaimEntry::new(claim, fence, attempt, now);
        let entry = match shard.claims.get_mut(&claim.id) {
            Some(held) if held.leased_until > now && held.owner == claim.owner => {
                return Ok(Claimed::Fresh {
                    fence: held.fence,
                    attempt: held.attempt,
                });
            }
            Some(held) if held.leased_until > now => {
                return Ok(Claimed::InFlight {
                    fingerprint: held.fingerprint,
                    lease_left: held.leased_until.since(now),
                    changed: claim.wait.then(|| Changed::new(held.changed())),
                });
            }
            Some(held) if held.retained_until() > now => {
                if held.fingerprint != claim.fingerprint || claim.on_unknown == OnUnknown::Hold {
                    return Ok(Claimed::Unknown {
                        fingerprint: held.fingerprint,
                    });
                }
                entry(held.fence + 1, held.attempt + 1).taking_over(held)
            }
            Some(held) => {
                let mut entry = entry(held.fence + 1, 1);
                entry.is_limited = held.is_limited;
                let (old, new) = (held.cost(&claim.id), entry.cost(&claim.id));
                self.budget.replace(old, new);
                entry
            }
            None => {
                if let Some(kept) = self.live_record(&mut shard.records, &claim.id, now) {
                    return Ok(Claimed::Recorded {
                        record: kept.record.clone(),
                        expires_in: kept.expires_at.since(now),
                    });
                }
                self.budget.take(ClaimEntry::cost_of(claim))?;
                entry(self.shards.next_fence(), 1)
            }
        };
        let (fence, attempt) = (entry.fence, entry.attempt);
        shard.claims.insert(claim.id, entry);
        Ok(Claimed::Fresh { fence, attempt })
    }

    /// Removes and returns the holder's claim, if the holder still owns it. The caller frees its bytes.
    fn take(&self, shard: &mut Shard, holder: Holder, now: Moment) -> Option<ClaimEntry> {
        let hash_map::Entry::Occupied(held) = shard.claims.entry(holder.id) else {
            return None;
        };
        if !held.get().is_held_by(holder, now) {
            return None;
        }
        let held = held.remove();
        self.shards.retire(held.fence);
        Some(held)
    }

    pub(super) fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> Settled {
        let mut shard = self.shards.of(&holder.id);
        let now = self.clock.now();
        let Some(mut held) = self.take(&mut shard, holder, now) else {
            return Settled::Lost;
        };
        let waiting = held.take_waiting();
        self.insert(&mut shard, holder.id, record, held, ttl, now);
        drop(shard);
        if let Some(waiting) = waiting {
            waiting.notify_waiters();
        }
        Settled::Done
    }

    /// Stores the record of a claim. If the record alone exceeds the budget, stores a record without
    /// the response.
    fn insert(
        &self,
        shard: &mut Shard,
        id: RecordId,
        record: Record,
        held: ClaimEntry,
        ttl: Duration,
        now: Moment,
    ) {
        let ttl = bounded(ttl);
        let old = held.cost(&id);
        let mut stored = StoredRecord::new(
            id,
            record,
            ttl,
            now,
            held.created_at,
            held.origin,
            held.is_limited,
        );
        if !self.budget.can_ever_hold(stored.cost().bytes) {
            tracing::warn!(
                target: crate::trace::TARGET,
                record = %id.short(),
                bytes = stored.record.as_bytes().len(),
                "a response is larger than the whole memory store and is not stored"
            );
            stored.forget_response();
        }
        self.budget.replace(old, stored.cost());
        let expires_at = stored.expires_at;
        let place = Place {
            shard: Shards::number(&id),
            slot: shard.records.insert(stored),
        };
        self.queue.push(place, expires_at, ttl);
    }

    pub(super) fn renew(&self, holder: Holder, lease: Duration) -> Settled {
        let mut shard = self.shards.of(&holder.id);
        let now = self.clock.now();
        match shard.claims.get_mut(&holder.id) {
            Some(held) if held.is_held_by(holder, now) => {
                held.leased_until = now.after(bounded(lease));
                Settled::Done
            }
            _ => Settled::Lost,
        }
    }

    pub(super) fn release(&self, holder: Holder) -> Settled {
        let mut shard = self.shards.of(&holder.id);
        let Some(held) = self.take(&mut shard, holder, self.clock.now()) else {
            return Settled::Lost;
        };
        self.budget.subtract(held.cost(&holder.id));
        drop(shard);
        held.wake();
        Settled::Done
    }

    pub(super) fn abandon(&self, holder: Holder) -> Settled {
        let mut shard = self.shards.of(&holder.id);
        let now = self.clock.now();
        match shard.claims.get_mut(&holder.id) {
            Some(held) if held.is_held_by(holder, now) => {
                held.leased_until = now;
                held.wake();
                Settled::Done
            }
            _ => Settled::Lost,
        }
    }

    pub(super) fn look_up(&self, id: &RecordId) -> Option<Entry> {
        let shard = self.shards.of(id);
        let now = self.clock.now();
        match shard.claims.get(id) {
            Some(held) if held.leased_until > now => Some(Entry::InFlight {
                fingerprint: held.fingerprint,
                fence: held.fence,
                attempt: held.attempt,
                lease_left: held.leased_until.since(now),
                origin: held.origin.clone(),
                created_at: self.clock.time(held.created_at),
            }),
            Some(held) if held.retained_until() > now => Some(Entry::Unknown {
                fingerprint: held.fingerprint,
                fence: held.fence,
                attempt: held.attempt,
                retained_for: held.retained_until().since(now),
                origin: held.origin.clone(),
                created_at: self.clock.time(held.created_at),
            }),
            Some(_) => None,
            None => {
                let kept = shard.records.get(id).filter(|it| it.expires_at > now)?;
                Some(Entry::Recorded {
                    record: kept.record.clone(),
                    expires_in: kept.expires_at.since(now),
                    origin: kept.origin(),
                    created_at: self.clock.time(kept.created_at),
                    settled_at: self.clock.time(kept.settled_at),
                })
            }
        }
    }

    pub(super) fn forget(&self, id: &RecordId) -> bool {
        let mut shard = self.shards.of(id);
        let is_live = shard.is_live(id, self.clock.now());
        if let Some(held) = shard.claims.remove(id) {
            self.budget.subtract(held.cost(id));
            self.shards.retire(held.fence);
            held.wake();
        }
        if let Some(slot) = shard.records.slot(id) {
            self.remove_record(&mut shard.records, slot);
        }
        is_live
    }

    pub(super) fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> Settled {
        let mut shard = self.shards.of(&id);
        let now = self.clock.now();
        let holder = match shard.claims.get(&id) {
            Some(held)
                if held.fence == fence
                    && held.leased_until <= now
                    && held.retained_until() > now =>
            {
                Holder {
                    id,
                    owner: held.owner,
                    fence,
                }
            }
            _ => return Settled::Lost,
        };
        let Some(held) = self.take(&mut shard, holder, now) else {
            return Settled::Lost;
        };
        self.insert(&mut shard, id, record, held, ttl, now);
        Settled::Done
    }
}
