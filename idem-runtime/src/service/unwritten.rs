//! The records that this process holds and its store does not have yet.
//!
//! A handler has returned a response, and the store did not accept the record in time. Until the
//! store accepts the record, this process replays the record, so that a retry at this process does
//! not run the handler again.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::request::digest_hasher::DigestHasher;
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::Record;

/// The maximum total size of the records in bytes. Beyond this size, only the note that a response
/// was not kept is held.
const MAX_BYTES: usize = 16 << 20;

/// Maps record ids to the records that the store does not have yet.
pub(crate) struct Unwritten {
    /// The number of entries, so that a look-up costs nothing while there are no entries.
    count: AtomicUsize,
    table: Mutex<Table>,
    max_bytes: usize,
}

#[derive(Default)]
struct Table {
    entries: HashMap<RecordId, Entry, BuildHasherDefault<DigestHasher>>,
    /// The total size of the records in bytes.
    bytes: usize,
    last_serial: u64,
    /// No overtaken entry ends before this time. `None` if no entry was overtaken.
    swept_until: Option<Instant>,
}

struct Entry {
    /// Distinguishes this entry from a later entry under the same id.
    serial: u64,
    attempt: u32,
    record: Record,
    expires_at: Instant,
    /// Set when the store reports that another claim has overtaken the attempt. The record is then
    /// no longer replayed. Until this time, the store may grant the next attempt to a request of this process. That request
    /// gets the record, and its handler does not run.
    overtaken_until: Option<Instant>,
    /// The number of `forget` calls in progress.
    forgetting: usize,
}

/// A record that waits for the store.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    pub(crate) record: Record,
    pub(crate) attempt: u32,
    /// When the `ttl` of the record ends.
    pub(crate) expires_at: Instant,
}

impl Default for Unwritten {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

impl Unwritten {
    fn new(max_bytes: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            table: Mutex::default(),
            max_bytes,
        }
    }

    /// `Relaxed` is enough, because a concurrent look-up may run before or after the insertion.
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Returns the record to replay for a request, before the store is asked.
    pub(crate) fn find(&self, id: &RecordId) -> Option<Record> {
        if self.is_empty() {
            return None;
        }
        let table = self.lock();
        let entry = table.entries.get(id)?;
        entry.is_replayed().then(|| entry.record.clone())
    }

    /// Returns the record that replaces a run, when the store has granted this process a claim with
    /// this attempt number and fingerprint. Removes the entry: the holder of the claim settles the
    /// claim with the record.
    pub(crate) fn take(
        &self,
        id: &RecordId,
        attempt: u32,
        fingerprint: Fingerprint,
    ) -> Option<Late> {
        if self.is_empty() {
            return None;
        }
        let mut table = self.lock();
        self.sweep(&mut table);
        let late = table.entries.get(id)?.instead_of(attempt, fingerprint)?;
        self.remove(&mut table, id);
        Some(late)
    }

    /// Like [`take`](Self::take), but for a claim that may belong to another process. Keeps the
    /// entry.
    pub(crate) fn look_for(
        &self,
        id: &RecordId,
        attempt: u32,
        fingerprint: Fingerprint,
    ) -> Option<Late> {
        if self.is_empty() {
            return None;
        }
        self.lock()
            .entries
            .get(id)?
            .instead_of(attempt, fingerprint)
    }

    /// The ids of all records of a scope.
    pub(crate) fn ids_of(&self, scope: ScopeId) -> Vec<RecordId> {
        let table = self.lock();
        let ids = table.entries.keys();
        ids.filter(|id| id.scope_id() == scope).copied().collect()
    }

    /// Hides the record while an operator forgets it.
    pub(crate) fn forget<'a>(&'a self, id: &RecordId) -> Forgetting<'a> {
        let mut serial = None;
        if !self.is_empty()
            && let Some(entry) = self.lock().entries.get_mut(id)
        {
            entry.forgetting += 1;
            serial = Some(entry.serial);
        }
        Forgetting {
            unwritten: self,
            id: *id,
            serial,
        }
    }

    /// Stores a record. Returns the serial of its entry and the record to write.
    ///
    /// The entry of a later attempt is not replaced, because its response is the newest. Then the
    /// returned serial has no entry.
    fn hold(&self, id: RecordId, late: Late) -> (u64, Record) {
        let mut table = self.lock();
        self.sweep(&mut table);
        table.last_serial += 1;
        let serial = table.last_serial;
        let is_newer = |entry: &Entry| entry.attempt > late.attempt && entry.is_current();
        if table.entries.get(&id).is_some_and(is_newer) {
            return (serial, late.record);
        }
        self.remove(&mut table, &id);
        let mut record = late.record;
        if table.bytes + record.as_bytes().len() > self.max_bytes {
            record = Record::not_kept(record.fingerprint(), record.status());
        }
        table.bytes += record.as_bytes().len();
        let entry = Entry {
            serial,
            attempt: late.attempt,
            record: record.clone(),
            expires_at: late.expires_at,
            overtaken_until: None,
            forgetting: 0,
        };
        table.entries.insert(id, entry);
        self.count.store(table.entries.len(), Ordering::Relaxed);
        (serial, record)
    }

    fn remove(&self, table: &mut Table, id: &RecordId) {
        if let Some(entry) = table.entries.remove(id) {
            table.bytes -= entry.record.as_bytes().len();
            self.count.store(table.entries.len(), Ordering::Relaxed);
        }
    }

    /// Removes overtaken records whose time has passed. Each other record is removed by the task
    /// that writes it.
    fn sweep(&self, table: &mut Table) {
        let now = Instant::now();
        if table.swept_until.is_none_or(|until| until > now) {
            return;
        }
        let is_over = |entry: &mut Entry| entry.overtaken_until.is_some_and(|until| until <= now);
        let removed = table.entries.extract_if(|_, entry| is_over(entry));
        table.bytes -= removed
            .map(|(_, entry)| entry.record.as_bytes().len())
            .sum::<usize>();
        let overtaken = table
            .entries
            .values()
            .filter_map(|entry| entry.overtaken_until);
        table.swept_until = overtaken.min();
        self.count.store(table.entries.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code panics between two changes of the table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_replayed(&self) -> bool {
        self.overtaken_until.is_none() && self.is_there()
    }

    /// Whether the record is replayed, or will be replayed if a `forget` in progress fails.
    fn is_current(&self) -> bool {
        self.overtaken_until.is_none() && self.expires_at > Instant::now()
    }

    fn is_there(&self) -> bool {
        self.forgetting == 0 && self.expires_at > Instant::now()
    }

    /// Returns the record, unless another process may have run this attempt or an earlier one.
    ///
    /// The key of an overtaken attempt may have been released and used for another request since. The
    /// attempts of that request count from 1 again, so the fingerprint has to be the same too.
    fn instead_of(&self, attempt: u32, fingerprint: Fingerprint) -> Option<Late> {
        let is_next = match self.overtaken_until {
            None => true,
            Some(until) => {
                until > Instant::now()
                    && attempt == self.attempt.saturating_add(1)
                    && fingerprint == self.record.fingerprint()
            }
        };
        (is_next && self.is_there()).then(|| Late {
            record: self.record.clone(),
            attempt: self.attempt,
            expires_at: self.expires_at,
        })
    }
}

/// Owns the entry of a record that a task tries to write. The entry is removed when this is
/// dropped.
pub(crate) struct Held {
    unwritten: Arc<Unwritten>,
    id: RecordId,
    serial: u64,
}

impl Held {
    /// Creates an entry for a record, and returns the record to write. That is the same record, or
    /// a record that is not kept if there is no room.
    pub(crate) fn new(unwritten: &Arc<Unwritten>, id: RecordId, late: Late) -> (Self, Record) {
        let (serial, record) = unwritten.hold(id, late);
        let held = Self {
            unwritten: unwritten.clone(),
            id,
            serial,
        };
        (held, record)
    }

    /// Returns whether the entry still exists: it was not forgotten, and no later claim has taken
    /// it.
    pub(crate) fn is_there(&self) -> bool {
        let table = self.unwritten.lock();
        let entry = table.entries.get(&self.id);
        entry.is_some_and(|entry| entry.serial == self.serial)
    }

    /// Ends the replays, because another claim has overtaken the attempt. If that claim belongs to
    /// this process, its request gets the record instead of a run, until `until`.
    pub(crate) fn overtaken(self, until: Instant) {
        let unwritten = &self.unwritten;
        let mut table = unwritten.lock();
        if let Some(entry) = table.entries.get_mut(&self.id)
            && entry.serial == self.serial
        {
            entry.overtaken_until = Some(until);
            let first = table.swept_until.map_or(until, |first| first.min(until));
            table.swept_until = Some(first);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let unwritten = &self.unwritten;
        let mut table = unwritten.lock();
        let is_mine =
            |entry: &Entry| entry.serial == self.serial && entry.overtaken_until.is_none();
        if table.entries.get(&self.id).is_some_and(is_mine) {
            unwritten.remove(&mut table, &self.id);
        }
    }
}

/// A `forget` call in progress. If it is dropped before the store has confirmed the call, it
/// changes nothing.
pub(crate) struct Forgetting<'a> {
    unwritten: &'a Unwritten,
    id: RecordId,
    serial: Option<u64>,
}

impl Forgetting<'_> {
    /// Removes the record after the store has forgotten the key. Returns whether a record was
    /// replayed here.
    pub(crate) fn confirm(mut self) -> bool {
        let Some(serial) = self.serial.take() else {
            return false;
        };
        let mut table = self.unwritten.lock();
        let Some(entry) = table.entries.get(&self.id).filter(|it| it.serial == serial) else {
            return false;
        };
        let was_replayed = entry.overtaken_until.is_none();
        self.unwritten.remove(&mut table, &self.id);
        was_replayed
    }
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        if let Some(serial) = self.serial
            && let Some(entry) = self.unwritten.lock().entries.get_mut(&self.id)
            && entry.serial == serial
        {
            entry.forgetting -= 1;
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.id.short())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::*;

    const ID: RecordId = RecordId::from_bytes([1; 32]);
    /// The fingerprint of the request.
    const BODY: Fingerprint = Fingerprint::from_bytes([7; 32]);
    const HOUR: Duration = Duration::from_secs(3600);

    fn late(body: &str) -> Late {
        let headers = HeaderMap::new();
        let record = Record::answer(BODY, StatusCode::OK, &headers, body.as_bytes());
        Late {
            record: record.expect("the record fits"),
            attempt: 1,
            expires_at: Instant::now() + HOUR,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_replayed_until_its_holder_ends() {
        let unwritten = &Arc::<Unwritten>::default();
        assert!(unwritten.find(&ID).is_none());
        let (held, record) = Held::new(unwritten, ID, late("first"));
        assert_eq!(unwritten.find(&ID), Some(record));
        assert!(unwritten.find(&RecordId::from_bytes([2; 32])).is_none());
        drop(held);
        assert!(unwritten.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_replayed_no_longer_than_its_ttl() {
        let unwritten = &Arc::<Unwritten>::default();
        let _held = Held::new(unwritten, ID, late("first"));
        tokio::time::advance(HOUR).await;
        assert!(unwritten.find(&ID).is_none());
        assert!(unwritten.take(&ID, 2, BODY).is_none());
    }

    #[test]
    fn beyond_the_budget_a_record_is_held_as_not_kept() {
        let unwritten = Unwritten::new(200);
        let ids = [1, 2, 3].map(|id| RecordId::from_bytes([id; 32]));
        let body = "x".repeat(100);
        let kept = ids.map(|id| unwritten.hold(id, late(&body)).1.is_kept());
        assert_eq!(kept, [true, false, false]);
        assert!(ids.iter().all(|id| unwritten.find(id).is_some()));
        // A removed entry makes room.
        unwritten.take(&ids[0], 2, BODY).expect("the entry exists");
        assert!(unwritten.hold(ids[0], late("y")).1.is_kept());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_removed_only_after_a_confirmed_forget() {
        let unwritten = &Arc::<Unwritten>::default();
        let (held, _) = Held::new(unwritten, ID, late("first"));
        let forgetting = unwritten.forget(&ID);
        assert!(unwritten.find(&ID).is_none());
        drop(forgetting);
        assert!(unwritten.find(&ID).is_some());
        assert!(unwritten.forget(&ID).confirm());
        assert!(!held.is_there());
        assert!(!unwritten.forget(&ID).confirm());
        // This holder does not own a later record under the same id.
        let (later, record) = Held::new(unwritten, ID, late("second"));
        drop(held);
        assert_eq!(unwritten.find(&ID), Some(record));
        drop(later);
        assert!(unwritten.is_empty());
    }

    /// An earlier attempt that ends late must not discard the response of a later one.
    #[tokio::test(start_paused = true)]
    async fn an_earlier_attempt_does_not_replace_the_record_of_a_later_attempt() {
        let unwritten = &Arc::<Unwritten>::default();
        let second = Late {
            attempt: 2,
            ..late("second")
        };
        let (held, record) = Held::new(unwritten, ID, second);
        let (earlier, _) = Held::new(unwritten, ID, late("first"));
        assert!(!earlier.is_there());
        earlier.overtaken(Instant::now() + HOUR);
        assert_eq!(unwritten.find(&ID).as_ref(), Some(&record));
        // The same applies while an operator tries to forget the later record.
        let forgetting = unwritten.forget(&ID);
        drop(Held::new(unwritten, ID, late("first")));
        drop(forgetting);
        assert_eq!(unwritten.find(&ID), Some(record));
        assert!(held.is_there());
        drop(held);
        assert!(unwritten.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_overtaken_record_of_a_later_attempt_is_replaced() {
        let unwritten = &Arc::<Unwritten>::default();
        let second = Late {
            attempt: 2,
            ..late("second")
        };
        let until = Instant::now() + HOUR;
        Held::new(unwritten, ID, second).0.overtaken(until);
        let (held, record) = Held::new(unwritten, ID, late("first"));
        assert!(held.is_there());
        assert_eq!(unwritten.find(&ID), Some(record));
    }

    /// Only the next attempt of the same request can be one that the store granted this process without a reply.
    #[tokio::test(start_paused = true)]
    async fn an_overtaken_record_replaces_only_the_next_attempt() {
        let unwritten = &Arc::<Unwritten>::default();
        let until = Instant::now() + Duration::from_secs(35);
        let overtaken = || Held::new(unwritten, ID, late("first")).0.overtaken(until);
        overtaken();
        assert!(unwritten.find(&ID).is_none());
        assert!(unwritten.take(&ID, 1, BODY).is_none());
        assert!(unwritten.take(&ID, 3, BODY).is_none());
        let other = Fingerprint::from_bytes([8; 32]);
        assert!(unwritten.look_for(&ID, 2, other).is_none());
        assert!(unwritten.take(&ID, 2, other).is_none());
        assert!(unwritten.look_for(&ID, 2, BODY).is_some());
        assert!(unwritten.take(&ID, 2, BODY).is_some());
        assert!(unwritten.is_empty());
        overtaken();
        tokio::time::advance(Duration::from_secs(35)).await;
        assert!(unwritten.take(&ID, 2, BODY).is_none());
        assert!(unwritten.is_empty(), "the entry was swept");
    }
}
