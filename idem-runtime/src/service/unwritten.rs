//! Records that this process holds and its store does not have yet.
//!
//! A handler has responded, and the store did not take the record in time. Until it does, this process
//! replays the record itself, so that no retry that reaches it runs the handler again.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::request::record_id::RecordId;
use crate::store::Record;

/// How many bytes the records take at most. Beyond it a record is held as "not kept".
const MAX_BYTES: usize = 16 << 20;

/// The records that the store does not have yet, by their ids.
pub(crate) struct Unwritten {
    /// How many entries there are, so that a look-up costs nothing while there are none.
    count: AtomicUsize,
    table: Mutex<Table>,
    max_bytes: usize,
}

#[derive(Default)]
struct Table {
    entries: HashMap<RecordId, Entry>,
    /// What the records take together.
    bytes: usize,
    last_serial: u64,
    /// No entry ends before this.
    swept_until: Option<Instant>,
}

struct Entry {
    /// Distinguishes this entry from a later one under the same id.
    serial: u64,
    attempt: u32,
    record: Record,
    expires_at: Instant,
    /// Set when the store said that another claim has overtaken the attempt: until then its record is
    /// not replayed any more, but takes the place of a run that this process itself might begin.
    overtaken_until: Option<Instant>,
    /// How many `forget`s are under way.
    forgetting: usize,
}

/// A record that waits for the store.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    pub(crate) record: Record,
    pub(crate) attempt: u32,
    /// When its `ttl` has passed.
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

    /// Relaxed, since an entry that is made beside this look-up could as well come behind it.
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// The record to replay for a request, before the store is asked.
    pub(crate) fn find(&self, id: &RecordId) -> Option<Record> {
        if self.is_empty() {
            return None;
        }
        let table = self.lock();
        let entry = table.entries.get(id)?;
        entry.is_replayed().then(|| entry.record.clone())
    }

    /// The record that takes the place of a run, when the store has granted this process the claim for
    /// an attempt. The entry ends: whoever holds the claim settles it with the record.
    pub(crate) fn take(&self, id: &RecordId, attempt: u32) -> Option<Late> {
        if self.is_empty() {
            return None;
        }
        let mut table = self.lock();
        self.sweep(&mut table);
        let late = table.entries.get(id)?.instead_of(attempt)?;
        self.remove(&mut table, id);
        Some(late)
    }

    /// As [`take`](Self::take), for a claim that may be this process's or not.
    pub(crate) fn look_for(&self, id: &RecordId, attempt: u32) -> Option<Late> {
        if self.is_empty() {
            return None;
        }
        self.lock().entries.get(id)?.instead_of(attempt)
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

    /// Holds a record, and returns the serial of its entry and the record to write.
    ///
    /// The entry of a later attempt stays, because it is the newest response. Then the returned serial
    /// has no entry.
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

    /// Removes overtaken records whose time is over. Others are removed by whoever writes them.
    fn sweep(&self, table: &mut Table) {
        let now = Instant::now();
        if table.swept_until.is_none_or(|until| until > now) {
            return;
        }
        let ended: Vec<_> = table
            .entries
            .iter()
            .filter(|(_, entry)| entry.overtaken_until.is_some_and(|until| until <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.remove(table, &id);
        }
        let untils = table.entries.values().filter_map(|it| it.overtaken_until);
        table.swept_until = untils.min();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics between two changes of the table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_replayed(&self) -> bool {
        self.overtaken_until.is_none() && self.is_there()
    }

    /// Whether the record is replayed, or will be when a `forget` under way fails.
    fn is_current(&self) -> bool {
        self.overtaken_until.is_none() && self.expires_at > Instant::now()
    }

    fn is_there(&self) -> bool {
        self.forgetting == 0 && self.expires_at > Instant::now()
    }

    /// The record, unless somebody else may have run that attempt or one before it.
    fn instead_of(&self, attempt: u32) -> Option<Late> {
        let is_next = match self.overtaken_until {
            None => true,
            Some(until) => until > Instant::now() && attempt == self.attempt.saturating_add(1),
        };
        (is_next && self.is_there()).then(|| Late {
            record: self.record.clone(),
            attempt: self.attempt,
            expires_at: self.expires_at,
        })
    }
}

/// The entry of a record that a task tries to write. It ends with this.
pub(crate) struct Held {
    unwritten: Arc<Unwritten>,
    id: RecordId,
    serial: u64,
}

impl Held {
    /// Makes an entry for a record, and gives the record to write: the same, or "not kept" where
    /// there is no room for it.
    pub(crate) fn new(unwritten: &Arc<Unwritten>, id: RecordId, late: Late) -> (Self, Record) {
        let (serial, record) = unwritten.hold(id, late);
        let held = Self {
            unwritten: unwritten.clone(),
            id,
            serial,
        };
        (held, record)
    }

    /// Whether the entry is still there: not forgotten, and not taken over by a later claim.
    pub(crate) fn is_there(&self) -> bool {
        let table = self.unwritten.lock();
        let entry = table.entries.get(&self.id);
        entry.is_some_and(|entry| entry.serial == self.serial)
    }

    /// Ends the replays, since another claim has overtaken the attempt. Where that claim turns out to
    /// be of this process, its request gets the record instead of a run, until `until`.
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

/// A `forget` that is under way. Dropped before the store has confirmed it, it changes nothing.
pub(crate) struct Forgetting<'a> {
    unwritten: &'a Unwritten,
    id: RecordId,
    serial: Option<u64>,
}

impl Forgetting<'_> {
    /// The store has forgotten the key. Says whether there was a record here.
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
    use crate::request::fingerprint::Fingerprint;

    const ID: RecordId = RecordId::from_bytes([1; 32]);
    const HOUR: Duration = Duration::from_secs(3600);

    fn late(body: &str) -> Late {
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let headers = HeaderMap::new();
        let record = Record::answer(fingerprint, StatusCode::OK, &headers, body.as_bytes());
        Late {
            record: record.expect("it fits"),
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
        assert!(unwritten.take(&ID, 2).is_none());
    }

    #[test]
    fn beyond_the_budget_a_record_is_not_kept_and_still_replayed() {
        let unwritten = Unwritten::new(200);
        let ids = [1, 2, 3].map(|id| RecordId::from_bytes([id; 32]));
        let body = "x".repeat(100);
        let kept = ids.map(|id| unwritten.hold(id, late(&body)).1.is_kept());
        assert_eq!(kept, [true, false, false]);
        assert!(ids.iter().all(|id| unwritten.find(id).is_some()));
        // What ends makes room.
        unwritten.take(&ids[0], 2).expect("it is there");
        assert!(unwritten.hold(ids[0], late("y")).1.is_kept());
    }

    #[tokio::test(start_paused = true)]
    async fn what_forget_has_confirmed_is_gone_and_what_failed_is_not() {
        let unwritten = &Arc::<Unwritten>::default();
        let (held, _) = Held::new(unwritten, ID, late("first"));
        let forgetting = unwritten.forget(&ID);
        assert!(unwritten.find(&ID).is_none());
        drop(forgetting);
        assert!(unwritten.find(&ID).is_some());
        assert!(unwritten.forget(&ID).confirm());
        assert!(!held.is_there());
        assert!(!unwritten.forget(&ID).confirm());
        // A later record under the same id is not this holder's.
        let (later, record) = Held::new(unwritten, ID, late("second"));
        drop(held);
        assert_eq!(unwritten.find(&ID), Some(record));
        drop(later);
        assert!(unwritten.is_empty());
    }

    /// An earlier attempt that ends late must not discard the response of a later one.
    #[tokio::test(start_paused = true)]
    async fn the_record_of_an_earlier_attempt_does_not_replace_that_of_a_later_one() {
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
        // Nor while an operator tries to forget it.
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

    /// Only the attempt that comes next can be one that this process was granted unheard.
    #[tokio::test(start_paused = true)]
    async fn an_overtaken_record_takes_the_place_of_the_next_attempt_alone() {
        let unwritten = &Arc::<Unwritten>::default();
        let until = Instant::now() + Duration::from_secs(35);
        let overtaken = || Held::new(unwritten, ID, late("first")).0.overtaken(until);
        overtaken();
        assert!(unwritten.find(&ID).is_none());
        assert!(unwritten.take(&ID, 1).is_none());
        assert!(unwritten.take(&ID, 3).is_none());
        assert!(unwritten.look_for(&ID, 2).is_some());
        assert!(unwritten.take(&ID, 2).is_some());
        assert!(unwritten.is_empty());
        overtaken();
        tokio::time::advance(Duration::from_secs(35)).await;
        assert!(unwritten.take(&ID, 2).is_none());
        assert!(unwritten.is_empty(), "it is swept");
    }
}
