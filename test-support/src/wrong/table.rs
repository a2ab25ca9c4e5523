//! A store with one flaw: a table behind one lock, as a third party might write it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, OnUnknown, Origin, Owner, Record, Settled, Store, StoreFuture,
};
use idem_runtime::{Fingerprint, RecordId};
use tokio::time::Instant;

/// The flaw of a [`FlawedStore`]. Everything else is correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Waits a microsecond between reading and writing.
    MicrosecondGap,
    /// Yields to other threads between reading and writing.
    YieldingGap,
    /// Reads a lapsed claim under one lock and takes it over under another lock.
    TakeoverGap,
    /// A renewal prolongs the lease but not the lifetime of the row.
    RenewKeepsExpiry,
    /// The retention counts from the claim, so the row may disappear while its lease is valid.
    RetentionFromClaim,
    /// A record is only found when the fingerprint also matches.
    RecordByFingerprint,
    /// `expires_in` is always the whole `ttl`.
    FullExpiresIn,
    /// A claim on an unknown outcome restarts its retention.
    ClaimRestartsRetention,
    LookUpRestartsRetention,
    LookUpProlongsLease,
    LookUpSaysFirstAttempt,
    LookUpSaysNoLeaseLeft,
    /// `forget` returns `true` for a row that has expired.
    ForgetsExpired,
    /// `resolve` accepts any fence up to the fence of the claim.
    ResolvesLowerFences,
    ResolvesPastRetention,
    /// The record of `resolve` lives only as long as the claim would have lived.
    ResolveIgnoresTtl,
    /// Releasing a takeover restores the unknown outcome.
    ReleasedTakeoverIsUnknown,
    TakeoverKeepsLease,
    TakeoverKeepsRetention,
    PanicsOnWait,
    /// A claim in flight always reports one nanosecond left.
    NanosecondLeft,
    /// The first claim after a retention gets the fence of the claim before it.
    FenceStandsPastRetention,
    /// An owner also recognises its own claim after the lease.
    OwnClaimAfterLease,
    /// Each process has its own lock.
    LockOfProcess,
    /// Each process counts its own fences.
    FencesOfProcess,
    /// Each process caches records until they expire.
    CacheOfProcess,
}

/// The handle of one process. All handles share one table.
pub struct FlawedStore {
    flaw: Flaw,
    table: Arc<Mutex<Table>>,
    process: Process,
}

#[derive(Default)]
struct Table {
    rows: HashMap<RecordId, Row>,
    last_fence: u64,
}

#[derive(Default)]
struct Process {
    lock: Mutex<()>,
    last_fence: AtomicU64,
    cache: Mutex<HashMap<RecordId, (Record, Instant)>>,
}

#[derive(Clone)]
struct Row {
    owner: Owner,
    fence: u64,
    attempt: u32,
    fingerprint: Fingerprint,
    leased_until: Instant,
    lease: Duration,
    retention: Duration,
    record: Option<Record>,
    ttl: Duration,
    expires_at: Instant,
    origin: Origin,
    created_at: SystemTime,
    settled_at: SystemTime,
}

impl FlawedStore {
    pub fn with(flaw: Flaw) -> Self {
        Self {
            flaw,
            table: Arc::default(),
            process: Process::default(),
        }
    }

    /// Returns a handle of another process to the same table.
    #[must_use]
    pub fn of_another_process(&self) -> Self {
        Self {
            flaw: self.flaw,
            table: self.table.clone(),
            process: Process::default(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    /// Removes an expired row. Returns the table and the fence of the removed row.
    fn live(&self, id: RecordId, now: Instant) -> (MutexGuard<'_, Table>, Option<u64>) {
        let mut table = self.table.lock().expect("no panic");
        let is_over = table.rows.get(&id).is_some_and(|row| row.expires_at <= now);
        let expired = is_over.then(|| table.rows.remove(&id)).flatten();
        (table, expired.map(|row| row.fence))
    }

    fn lock_of_process(&self) -> Option<MutexGuard<'_, ()>> {
        self.has(Flaw::LockOfProcess)
            .then(|| self.process.lock.lock().expect("no panic"))
    }

    fn gap(&self) {
        match self.flaw {
            Flaw::MicrosecondGap | Flaw::LockOfProcess => {
                let until = std::time::Instant::now() + Duration::from_micros(1);
                while std::time::Instant::now() < until {
                    std::hint::spin_loop();
                }
            }
            Flaw::YieldingGap => std::thread::yield_now(),
            _ => {}
        }
    }

    fn try_claim(&self, claim: &Claim) -> Claimed {
        assert!(
            !(self.has(Flaw::PanicsOnWait) && claim.wait),
            "this store does not support waiting"
        );
        let _held = self.lock_of_process();
        let now = Instant::now();
        if let Some(cached) = self.cached(claim.id, now) {
            return cached;
        }
        let (mut table, expired) = self.live(claim.id, now);
        let row = table.rows.get_mut(&claim.id);
        let lapsed = match row {
            Some(row) => match self.found(row, claim, now) {
                Some(claimed) => return claimed,
                None => Some(row.clone()),
            },
            None => None,
        };
        let has_gap = match self.flaw {
            Flaw::MicrosecondGap | Flaw::YieldingGap | Flaw::LockOfProcess => true,
            Flaw::TakeoverGap => lapsed.is_some(),
            _ => false,
        };
        if has_gap {
            drop(table);
            self.gap();
            table = self.table.lock().expect("no panic");
        }
        table.last_fence += 1;
        let fence = match expired {
            Some(expired) if self.has(Flaw::FenceStandsPastRetention) => expired,
            _ if self.has(Flaw::FencesOfProcess) => {
                self.process.last_fence.fetch_add(1, Ordering::Relaxed) + 1
            }
            _ => table.last_fence,
        };
        let row = self.claimed(claim, lapsed.as_ref(), fence, now);
        let attempt = row.attempt;
        table.rows.insert(claim.id, row);
        Claimed::Fresh { fence, attempt }
    }

    /// Returns the state of a row, or `None` when the claim takes the row over.
    fn found(&self, row: &mut Row, claim: &Claim, now: Instant) -> Option<Claimed> {
        if let Some(record) = &row.record {
            if self.has(Flaw::RecordByFingerprint) && record.fingerprint() != claim.fingerprint {
                return None;
            }
            if self.has(Flaw::CacheOfProcess) {
                let mut cache = self.process.cache.lock().expect("no panic");
                cache.insert(claim.id, (record.clone(), row.expires_at));
            }
            return Some(Claimed::Recorded {
                record: record.clone(),
                expires_in: self.expires_in(row, now),
            });
        }
        let is_leased = row.leased_until > now;
        if row.owner == claim.owner && (is_leased || self.has(Flaw::OwnClaimAfterLease)) {
            let (fence, attempt) = (row.fence, row.attempt);
            return Some(Claimed::Fresh { fence, attempt });
        }
        if is_leased {
            let lease_left = if self.has(Flaw::NanosecondLeft) {
                Duration::from_nanos(1)
            } else {
                row.leased_until - now
            };
            return Some(Claimed::InFlight {
                fingerprint: row.fingerprint,
                lease_left,
                changed: None,
            });
        }
        let is_rerun = claim.on_unknown == OnUnknown::Rerun;
        if is_rerun && row.fingerprint == claim.fingerprint {
            return None;
        }
        if self.has(Flaw::ClaimRestartsRetention) {
            row.expires_at = now + row.retention;
        }
        Some(Claimed::Unknown {
            fingerprint: row.fingerprint,
        })
    }

    /// Builds the row of a claim that wins.
    fn claimed(&self, claim: &Claim, lapsed: Option<&Row>, fence: u64, now: Instant) -> Row {
        let (mut lease, mut retention) = (claim.lease, claim.retention);
        // A record that another request overwrites does not count as an attempt.
        let lapsed = lapsed.filter(|row| row.record.is_none());
        match lapsed {
            Some(row) if self.has(Flaw::TakeoverKeepsLease) => lease = row.lease,
            Some(row) if self.has(Flaw::TakeoverKeepsRetention) => retention = row.retention,
            _ => {}
        }
        let counted_from = if self.has(Flaw::RetentionFromClaim) {
            now
        } else {
            now + lease
        };
        Row {
            owner: claim.owner,
            fence,
            attempt: lapsed.map_or(1, |row| row.attempt + 1),
            fingerprint: claim.fingerprint,
            leased_until: now + lease,
            lease,
            retention,
            record: None,
            ttl: Duration::ZERO,
            expires_at: counted_from + retention,
            origin: lapsed.map_or(&claim.origin, |row| &row.origin).clone(),
            created_at: lapsed.map_or_else(SystemTime::now, |row| row.created_at),
            settled_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn cached(&self, id: RecordId, now: Instant) -> Option<Claimed> {
        let cache = self.process.cache.lock().expect("no panic");
        let (record, expires_at) = cache.get(&id).filter(|(_, at)| *at > now)?;
        Some(Claimed::Recorded {
            record: record.clone(),
            expires_in: *expires_at - now,
        })
    }

    fn expires_in(&self, row: &Row, now: Instant) -> Duration {
        if self.has(Flaw::FullExpiresIn) {
            row.ttl
        } else {
            row.expires_at - now
        }
    }

    /// Changes the holder's claim, or removes it when `change` returns `false`.
    fn settle(
        &self,
        holder: Holder,
        change: impl FnOnce(&mut Row, Instant) -> bool,
    ) -> StoreFuture<Settled> {
        let _held = self.lock_of_process();
        let now = Instant::now();
        let (mut table, _) = self.live(holder.id, now);
        let settled = match table.rows.get_mut(&holder.id) {
            Some(row)
                if row.record.is_none()
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

    fn entry(&self, row: &mut Row, now: Instant) -> Entry {
        if let Some(record) = &row.record {
            return Entry::Recorded {
                record: record.clone(),
                expires_in: self.expires_in(row, now),
                origin: row.origin.clone(),
                created_at: row.created_at,
                settled_at: row.settled_at,
            };
        }
        let (fingerprint, fence) = (row.fingerprint, row.fence);
        let attempt = match self.flaw {
            Flaw::LookUpSaysFirstAttempt => 1,
            _ => row.attempt,
        };
        if row.leased_until > now {
            if self.has(Flaw::LookUpProlongsLease) {
                row.leased_until = now + row.lease;
                row.expires_at = row.leased_until + row.retention;
            }
            let lease_left = match self.flaw {
                Flaw::LookUpSaysNoLeaseLeft => Duration::ZERO,
                _ => row.leased_until - now,
            };
            return Entry::InFlight {
                fingerprint,
                fence,
                attempt,
                lease_left,
                origin: row.origin.clone(),
                created_at: row.created_at,
            };
        }
        if self.has(Flaw::LookUpRestartsRetention) {
            row.expires_at = now + row.retention;
        }
        Entry::Unknown {
            fingerprint,
            fence,
            attempt,
            retained_for: row.expires_at - now,
            origin: row.origin.clone(),
            created_at: row.created_at,
        }
    }
}

impl Store for FlawedStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        StoreFuture::ready(Ok(self.try_claim(&claim)))
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.settle(holder, |row, now| {
            row.leased_until = now + lease;
            if !self.has(Flaw::RenewKeepsExpiry) {
                row.expires_at = row.leased_until + row.retention;
            }
            true
        })
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.settle(holder, |row, now| {
            row.record = Some(record);
            row.settled_at = SystemTime::now();
            row.ttl = ttl;
            row.expires_at = now + ttl;
            true
        })
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.settle(holder, |row, now| {
            let is_unknown = self.has(Flaw::ReleasedTakeoverIsUnknown) && row.attempt > 1;
            row.leased_until = now;
            row.expires_at = now + row.retention;
            is_unknown
        })
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.settle(holder, |row, now| {
            row.leased_until = now;
            row.expires_at = now + row.retention;
            true
        })
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        let _held = self.lock_of_process();
        let now = Instant::now();
        let (mut table, _) = self.live(id, now);
        let entry = table.rows.get_mut(&id).map(|row| self.entry(row, now));
        StoreFuture::ready(Ok(entry))
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        let _held = self.lock_of_process();
        self.process.cache.lock().expect("no panic").remove(&id);
        let (mut table, expired) = self.live(id, Instant::now());
        let was_there = table.rows.remove(&id).is_some();
        let says = was_there || (self.has(Flaw::ForgetsExpired) && expired.is_some());
        StoreFuture::ready(Ok(says))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        let _held = self.lock_of_process();
        let now = Instant::now();
        let mut table = if self.has(Flaw::ResolvesPastRetention) {
            self.table.lock().expect("no panic")
        } else {
            self.live(id, now).0
        };
        let is_its = |row: &Row| match self.flaw {
            Flaw::ResolvesLowerFences => fence <= row.fence,
            _ => fence == row.fence,
        };
        let settled = match table.rows.get_mut(&id) {
            Some(row) if row.record.is_none() && row.leased_until <= now && is_its(row) => {
                row.record = Some(record);
                row.settled_at = SystemTime::now();
                row.ttl = ttl;
                if !self.has(Flaw::ResolveIgnoresTtl) {
                    row.expires_at = now + ttl;
                }
                Settled::Done
            }
            _ => Settled::Lost,
        };
        StoreFuture::ready(Ok(settled))
    }
}
