//! A store written by hand, and checked by the contract suite.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum_idem::store::{
    Claim, Claimed, Entry, Holder, OnUnknown, Owner, Record, Settled, Store, StoreFuture,
};
use axum_idem::testing::Contract;
use axum_idem::{Fingerprint, RecordId};
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
}

#[derive(Debug)]
enum State {
    Claimed {
        fingerprint: Fingerprint,
        attempt: u32,
        leased_until: Instant,
        retention: Duration,
    },
    Recorded(Record),
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

    /// Changes the claim only for its holder: rule 2.
    fn settle(
        &self,
        holder: Holder,
        change: impl FnOnce(&mut Table, &Row, Instant),
    ) -> StoreFuture<Settled> {
        let now = Instant::now();
        let mut table = self.at(holder.id, now);
        let row = table.rows.remove(&holder.id);
        let settled = match row {
            Some(row)
                if matches!(row.state, State::Claimed { .. })
                    && (row.owner, row.fence) == (holder.owner, holder.fence) =>
            {
                change(&mut table, &row, now);
                Settled::Done
            }
            Some(another) => {
                table.rows.insert(holder.id, another);
                Settled::Lost
            }
            None => Settled::Lost,
        };
        StoreFuture::ready(Ok(settled))
    }

    /// Changes the end of the holder's lease.
    fn lease(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.settle(holder, |table, row, now| {
            if let State::Claimed {
                fingerprint,
                attempt,
                retention,
                ..
            } = row.state
            {
                let row = Row {
                    state: State::Claimed {
                        fingerprint,
                        attempt,
                        leased_until: now + lease,
                        retention,
                    },
                    expires_at: now + lease + retention,
                    ..*row
                };
                table.rows.insert(holder.id, row);
            }
        })
    }
}

impl Store for TableStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let now = Instant::now();
        let mut table = self.at(claim.id, now);
        let attempt = match table.rows.get(&claim.id) {
            None => 1,
            Some(row) => match &row.state {
                State::Recorded(record) => {
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
        self.settle(holder, |_, _, _| {})
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.settle(holder, |table, row, now| {
            let row = Row {
                state: State::Recorded(record),
                expires_at: now + ttl,
                ..*row
            };
            table.rows.insert(holder.id, row);
        })
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        let now = Instant::now();
        let table = self.at(id, now);
        let entry = table.rows.get(&id).map(|row| match &row.state {
            State::Recorded(record) => Entry::Recorded {
                record: record.clone(),
                expires_in: row.expires_at - now,
            },
            State::Claimed {
                fingerprint,
                attempt,
                leased_until,
                ..
            } if *leased_until > now => Entry::InFlight {
                fingerprint: *fingerprint,
                fence: row.fence,
                attempt: *attempt,
                lease_left: *leased_until - now,
            },
            State::Claimed {
                fingerprint,
                attempt,
                ..
            } => Entry::Unknown {
                fingerprint: *fingerprint,
                fence: row.fence,
                attempt: *attempt,
                retained_for: row.expires_at - now,
            },
        });
        StoreFuture::ready(Ok(entry))
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
                row.state = State::Recorded(record);
                row.expires_at = now + ttl;
                Settled::Done
            }
            _ => Settled::Lost,
        };
        StoreFuture::ready(Ok(settled))
    }
}

#[tokio::main]
async fn main() {
    Contract::of(TableStore::default()).assert().await;
    println!("the store keeps every rule");
}
