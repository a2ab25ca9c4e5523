//! Lists, counts and forgets many records for an operator.
//!
//! A page scans all entries, shard by shard. An entry never changes its shard, so no entry is missed or seen
//! twice.

use std::time::SystemTime;

use super::Inner;
use super::claims::ClaimEntry;
use super::clock::Moment;
use super::records::StoredRecord;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::{Count, Cursor, Page, Query, State, StateKind, Stats, StoreError, Summary};

/// The records of a page, in the order of their ids: the first of those behind the cursor.
struct Listing<'q> {
    query: &'q Query,
    after: Option<RecordId>,
    /// One more than the page has, so that it is known whether another page follows.
    found: Vec<Summary>,
}

impl<'q> Listing<'q> {
    fn new(query: &'q Query) -> Result<Self, StoreError> {
        let after = query.after.as_ref().map(Cursor::record_id).transpose()?;
        Ok(Self {
            query,
            after,
            found: Vec::new(),
        })
    }

    /// Whether a record with this id can be on the page.
    fn may_list(&self, id: &RecordId) -> bool {
        let is_full = self.found.len() > self.query.page_len();
        self.query.matches_id(id)
            && self.after.is_none_or(|after| *id > after)
            && !(is_full && self.found.last().is_some_and(|last| *id > last.id))
    }

    /// Adds an entry that the query matches at the time `now`.
    fn add(&mut self, entry: Summary, now: SystemTime) {
        if !self.query.matches(&entry, now) {
            return;
        }
        // Not a `BTreeMap`, whose code takes 60 kB in a debug build.
        match self.found.binary_search_by_key(&entry.id, |found| found.id) {
            Ok(at) => self.found[at] = entry,
            Err(at) => self.found.insert(at, entry),
        }
        self.found.truncate(self.query.page_len() + 1);
    }

    fn page(mut self) -> Page {
        let has_more = self.found.len() > self.query.page_len();
        if has_more {
            self.found.pop();
        }
        let last = self.found.last().map(|last| last.id);
        let next = last.filter(|_| has_more).map(Cursor::of_record);
        Page::new(self.found, next)
    }
}

impl Inner {
    pub(super) fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let mut listing = Listing::new(query)?;
        let (lists_claims, lists_records) = match query.state {
            None => (true, true),
            Some(StateKind::Recorded) => (false, true),
            Some(_) => (true, false),
        };
        self.shards.for_each(&mut |shard| {
            let now = self.clock.now();
            if lists_claims {
                for (id, held) in &shard.claims {
                    if listing.may_list(id)
                        && let Some(entry) = self.claimed(*id, held, now)
                    {
                        listing.add(entry, self.clock.time(now));
                    }
                }
            }
            if lists_records {
                shard.records.for_each(&mut |kept| {
                    if listing.may_list(&kept.id)
                        && let Some(entry) = self.recorded(kept, now)
                    {
                        listing.add(entry, self.clock.time(now));
                    }
                });
            }
        });
        Ok(listing.page())
    }

    fn claimed(&self, id: RecordId, held: &ClaimEntry, now: Moment) -> Option<Summary> {
        let state = held.state(now)?;
        let created_at = self.clock.time(held.created_at);
        Some(Summary::new(id, held.origin.clone(), created_at, state))
    }

    fn recorded(&self, kept: &StoredRecord, now: Moment) -> Option<Summary> {
        if kept.expires_at <= now {
            return None;
        }
        let (created_at, settled_at) = (
            self.clock.time(kept.created_at),
            self.clock.time(kept.settled_at),
        );
        let state = State::recorded(&kept.record, settled_at, kept.expires_at.since(now));
        Some(Summary::new(kept.id, kept.origin(), created_at, state))
    }

    pub(super) fn stats(&self) -> Stats {
        let (mut in_flight, mut unknown, mut recorded) = (0, 0, 0);
        self.shards.for_each(&mut |shard| {
            let now = self.clock.now();
            for held in shard.claims.values() {
                match held.state(now) {
                    Some(State::InFlight { .. }) => in_flight += 1,
                    Some(_) => unknown += 1,
                    None => {}
                }
            }
            shard
                .records
                .for_each(&mut |kept| recorded += u64::from(kept.expires_at > now));
        });
        Stats {
            in_flight: Count::exact(in_flight),
            unknown: Count::exact(unknown),
            recorded: Count::exact(recorded),
            bytes: Some(self.budget.used() as u64),
            max_bytes: Some(self.budget.max() as u64),
        }
    }

    pub(super) fn forget_scope(&self, scope: ScopeId) -> u64 {
        let mut ids = Vec::new();
        self.shards.for_each(&mut |shard| {
            let mut look = |id: &RecordId| {
                if id.scope_id() == scope {
                    ids.push(*id);
                }
            };
            for id in shard.claims.keys() {
                look(id);
            }
            shard.records.for_each(&mut |kept| look(&kept.id));
        });
        let mut forgotten = 0;
        for id in &ids {
            forgotten += u64::from(self.forget(id));
        }
        forgotten
    }
}

impl ClaimEntry {
    /// What a listing shows of the claim. `None` when its retention has passed.
    fn state(&self, now: Moment) -> Option<State> {
        let (fence, attempt) = (self.fence, self.attempt);
        if self.leased_until > now {
            Some(State::InFlight {
                fence,
                attempt,
                lease_left: self.leased_until.since(now),
            })
        } else if self.retained_until() > now {
            Some(State::Unknown {
                fence,
                attempt,
                retained_for: self.retained_until().since(now),
            })
        } else {
            None
        }
    }
}
