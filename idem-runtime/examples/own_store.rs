//! A store written by hand, and checked by the contract suite.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum_idem::store::{
    Claim, Claimed, Cursor, Entry, Holder, OnUnknown, Origin, Owner, Page, Query, Record, Settled,
    Store, StoreFuture,
};
use axum_idem::testing::Contract;
use axum_idem::{Fingerprint, RecordId, ScopeId};
use tokio::time::Instant;

/// One table behind one lock. Each transition holds the lock from start to end, so it is atomic.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableStore(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    rows: HashMap<RecordId, Row>,
    /// The highest fence of all rows, including rows that are long gone: rule 7.
    last_fence: u64,
}

#[derive(Debug)]
struct Row {
    owner: Owner,
    fence: u64,
    state: State,
    /// For a claim: when its lease and its retention have passed.
    expires_at: Instant,
    origin: Origin,
    created_at: SystemTime,
}

#[derive(Debug)]
enum State {
    Claimed {
        fingerprint: Fingerprint,
        attempt: u32,
        leased_until: Instant,
        retention: Duration,
    },
    Recorded {
        record: Record,
        settled_at: SystemTime,
    },
}

impl TableStore {
    /// The table, after removing the row under `id` if the row has expired: rule 4.
    fn at(&self, id: RecordId, now: Instant) -> MutexGuard<'_, Table> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.rows.get(&id).is_some_and(|row| row.expires_at <= now) {
            table.rows.remove(&id);
        }
        table
    }

    /// Changes the claim only for its holder: rule 2. Removes the claim when `change` returns `false`.
    fn settle(
        &self,
        holder: Holder,
        change: impl FnOnce(&mut Row, Instant) -> bool,
    ) -> StoreFuture<Settled> {
        let now = Instant::now();
        let mut table = self.at(holder.id, now);
        let settled = match table.rows.get_mut(&holder.id) {
            Some(row)
                if matches!(row.state, State::Claimed { .. })
                    && (row.owner, row.fence) == (holder.owner, holder.fence) =>
            {
                if !change(row, now) {
                    table.rows.remove(&holder.id);
                }
                Settled::Done
            }
            _ => Settled::Lost,
        };
        StoreFuture::ready(Ok(settled))
    }

    /// Changes the end of the holder's lease.
    fn lease(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.settle(holder, |row, now| {
            if let State::Claimed {
                leased_until,
                retention,
                ..
            } = &mut row.state
            {
                *leased_until = now + lease;
                row.expires_at = now + lease + *retention;
            }
            true
        })
    }
}

impl Row {
    fn record(&mut self, record: Record, ttl: Duration, now: Instant) {
        let settled_at = SystemTime::now();
        self.state = State::Recorded { record, settled_at };
        self.expires_at = now + ttl;
    }

    /// What an operator sees.
    fn entry(&self, now: Instant) -> Entry {
        let (origin, created_at) = (self.origin.clone(), self.created_at);
        match &self.state {
            State::Recorded { record, settled_at } => Entry::Recorded {
                record: record.clone(),
                expires_in: self.expires_at - now,
                origin,
                created_at,
                settled_at: *settled_at,
            },
            State::Claimed {
                fingerprint,
                attempt,
                leased_until,
                ..
            } if *leased_until > now => Entry::InFlight {
                fingerprint: *fingerprint,
                fence: self.fence,
                attempt: *attempt,
                lease_left: *leased_until - now,
                origin,
                created_at,
            },
            State::Claimed {
                fingerprint,
                attempt,
                ..
            } => Entry::Unknown {
                fingerprint: *fingerprint,
                fence: self.fence,
                attempt: *attempt,
                retained_for: self.expires_at - now,
                origin,
                created_at,
            },
        }
    }
}

impl Store for TableStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let now = Instant::now();
        let mut table = self.at(claim.id, now);
        let attempt = match table.rows.get(&claim.id) {
            None => 1,
            Some(row) => match &row.state {
                State::Recorded { record, .. } => {
                    return StoreFuture::ready(Ok(Claimed::Recorded {
                        record: record.clone(),
                        expires_in: row.expires_at - now,
                    }));
                }
                // Rule 8: the claimer's first reply was lost, and it claims again.
                State::Claimed {
                    attempt,
                    leased_until,
                    ..
                } if *leased_until > now && row.owner == claim.owner => {
                    return StoreFuture::ready(Ok(Claimed::Fresh {
                        fence: row.fence,
                        attempt: *attempt,
                    }));
                }
                State::Claimed {
                    fingerprint,
                    leased_until,
                    ..
                } if *leased_until > now => {
                    return StoreFuture::ready(Ok(Claimed::InFlight {
                        fingerprint: *fingerprint,
                        lease_left: *leased_until - now,
                        // This store wakes nobody; a caller that waits claims again.
                        changed: None,
                    }));
                }
                State::Claimed {
                    fingerprint,
                    attempt,
                    ..
                } if *fingerprint == claim.fingerprint && claim.on_unknown == OnUnknown::Rerun => {
                    attempt + 1
                }
                State::Claimed { fingerprint, .. } => {
                    return StoreFuture::ready(Ok(Claimed::Unknown {
                        fingerprint: *fingerprint,
                    }));
                }
            },
        };
        // The lock is still held: rule 1.
        table.last_fence += 1;
        let fence = table.last_fence;
        // A takeover keeps the origin of the first attempt.
        let (origin, created_at) = match table.rows.remove(&claim.id) {
            Some(lapsed) => (lapsed.origin, lapsed.created_at),
            None => (claim.origin, SystemTime::now()),
        };
        let row = Row {
            owner: claim.owner,
            fence,
            state: State::Claimed {
                fingerprint: claim.fingerprint,
                attempt,
                leased_until: now + claim.lease,
                retention: claim.retention,
            },
            expires_at: now + claim.lease + claim.retention,
            origin,
            created_at,
        };
        table.rows.insert(claim.id, row);
        StoreFuture::ready(Ok(Claimed::Fresh { fence, attempt }))
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.lease(holder, lease)
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.lease(holder, Duration::ZERO)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.settle(holder, |_, _| false)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.settle(holder, |row, now| {
            row.record(record, ttl, now);
            true
        })
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        let now = Instant::now();
        let table = self.at(id, now);
        StoreFuture::ready(Ok(table.rows.get(&id).map(|row| row.entry(now))))
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        let was_there = self.at(id, Instant::now()).rows.remove(&id).is_some();
        StoreFuture::ready(Ok(was_there))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        let now = Instant::now();
        let mut table = self.at(id, now);
        let settled = match table.rows.get_mut(&id) {
            Some(row)
                if row.fence == fence
                    && matches!(row.state, State::Claimed { leased_until, .. } if leased_until <= now) =>
            {
                row.record(record, ttl, now);
                Settled::Done
            }
            _ => Settled::Lost,
        };
        StoreFuture::ready(Ok(settled))
    }

    /// A store may support this, for operators. All in one page is enough for a small table, but a page
    /// has an end.
    fn list(&self, query: Query) -> StoreFuture<Page> {
        let now = Instant::now();
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let after = query.after.as_ref().map(Cursor::as_bytes);
        let mut found: Vec<_> = table
            .rows
            .iter()
            .filter(|(id, row)| row.expires_at > now && Some(&id.as_bytes()[..]) > after)
            .map(|(id, row)| row.entry(now).summary(*id))
            .filter(|entry| query.matches(entry, SystemTime::now()))
            .collect();
        found.sort_by_key(|entry| entry.id);
        let has_more = found.len() > query.limit;
        found.truncate(query.limit);
        let last = found.last().filter(|_| has_more);
        let next = last.map(|entry| Cursor::from_bytes(*entry.id.as_bytes()));
        StoreFuture::ready(Ok(Page::new(found, next)))
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        let now = Instant::now();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_scope = |id: &RecordId, _: &mut Row| id.scope_id() == scope;
        let forgotten = table.rows.extract_if(of_scope);
        let forgotten = forgotten.filter(|(_, row)| row.expires_at > now).count();
        StoreFuture::ready(Ok(forgotten as u64))
    }
}

#[tokio::main]
async fn main() {
    Contract::of(TableStore::default()).assert().await;
    println!("the store keeps every rule");
}
