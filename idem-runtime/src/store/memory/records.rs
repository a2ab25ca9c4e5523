//! The finished records of one shard.

use std::time::Duration;

use hashbrown::HashTable;

use super::budget::Cost;
use super::clock::Moment;
use crate::request::record_id::RecordId;
use crate::store::origin::CompactOrigin;
use crate::store::{Origin, Record};

/// Bytes that an entry needs in addition to the bytes of its record: the entry itself, its place in the index
/// and in the queue, and what the allocator adds. Measured: from 185 to 240, depending on how full the index
/// and the queue are.
const KEEP: usize = 245;

/// A finished record. It leaves the store only through the [`Queue`](super::queue::Queue) or when an
/// operator forgets it.
#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) id: RecordId,
    /// Knows the trace of its first request.
    pub(super) record: Record,
    pub(super) expires_at: Moment,
    pub(super) settled_at: Moment,
    pub(super) created_at: Moment,
    /// Without the trace.
    origin: CompactOrigin,
    /// Whether the scope pays for the record out of its share.
    is_limited: bool,
}

impl StoredRecord {
    /// The record of a claim, for `ttl` from `now`.
    pub(super) fn new(
        id: RecordId,
        record: Record,
        ttl: Duration,
        now: Moment,
        created_at: Moment,
        origin: Origin,
        is_limited: bool,
    ) -> Self {
        Self {
            id,
            record: record.with_first_trace_id(origin.trace_id()),
            expires_at: now.after(ttl),
            settled_at: now,
            created_at,
            origin: origin.into(),
            is_limited,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        let trace_id = self.record.first_trace_id();
        self.origin.origin().with_trace_id(trace_id)
    }

    /// Keeps only that there was a response.
    pub(super) fn forget_response(&mut self) {
        let not_kept = Record::not_kept(self.record.fingerprint(), self.record.status());
        self.record = not_kept.with_first_trace_id(self.record.first_trace_id());
    }

    pub(super) fn cost(&self) -> Cost {
        Cost {
            bytes: self.record.as_bytes().len() + self.origin.heap_bytes() + KEEP,
            scope: self.is_limited.then(|| self.id.scope_id()),
        }
    }
}

/// Where a record is in its shard. Stays the same until the record leaves.
pub(super) type Slot = u32;

/// The records of a shard.
///
/// A hash table is half empty on average, so it has only the slot of each record, in four bytes. The records
/// are in chunks that never move, and the slot of a record that has left is used again. Measured with a
/// million records of 300 bytes, against a map of boxes: 187 bytes less for each record.
#[derive(Debug, Default)]
pub(super) struct Records {
    index: HashTable<Slot>,
    chunks: Chunks,
    free: Vec<Slot>,
}

impl Records {
    pub(super) fn get(&self, id: &RecordId) -> Option<&StoredRecord> {
        self.chunks.get(self.slot(id)?)
    }

    /// The slot of a record.
    pub(super) fn slot(&self, id: &RecordId) -> Option<Slot> {
        let is_it = |slot: &Slot| self.chunks.get(*slot).is_some_and(|it| it.id == *id);
        self.index.find(hash(id), is_it).copied()
    }

    /// The record in a slot, if there is one.
    pub(super) fn at(&self, slot: Slot) -> Option<&StoredRecord> {
        self.chunks.get(slot)
    }

    /// Adds a record whose id has none, and returns its slot.
    pub(super) fn insert(&mut self, record: StoredRecord) -> Slot {
        let hash_of_it = hash(&record.id);
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.chunks.entry(slot) = Some(record);
                slot
            }
            None => self.chunks.push(record),
        };
        let chunks = &self.chunks;
        self.index.insert_unique(hash_of_it, slot, |slot| {
            chunks.get(*slot).map_or(0, |it| hash(&it.id))
        });
        slot
    }

    /// Removes and returns the record in a slot, if there is one.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<StoredRecord> {
        let record = self.chunks.entry(slot).take()?;
        if let Ok(place) = self
            .index
            .find_entry(hash(&record.id), |other| *other == slot)
        {
            place.remove();
        }
        self.free.push(slot);
        Some(record)
    }

    /// Calls `look` for each record.
    pub(super) fn for_each(&self, look: &mut dyn FnMut(&StoredRecord)) {
        for chunk in &self.chunks.0 {
            chunk.iter().flatten().for_each(&mut *look);
        }
    }
}

/// A record id consists of digests, so its bytes are already a good hash. The first half is the same for a
/// whole scope.
fn hash(id: &RecordId) -> u64 {
    let (_, second_half) = id.as_bytes().split_at(16);
    let first = second_half.first_chunk();
    first.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// How many records a chunk has. A larger chunk saves less than two bytes for each record, and costs a store
/// with few records as much in each of its shards.
const CHUNK: usize = 16;

/// A vector that does not move its elements when it grows.
#[derive(Debug, Default)]
struct Chunks(Vec<Vec<Option<StoredRecord>>>);

impl Chunks {
    fn get(&self, slot: Slot) -> Option<&StoredRecord> {
        let slot = slot as usize;
        self.0.get(slot / CHUNK)?.get(slot % CHUNK)?.as_ref()
    }

    /// The place of a slot that was in use before.
    fn entry(&mut self, slot: Slot) -> &mut Option<StoredRecord> {
        let slot = slot as usize;
        &mut self.0[slot / CHUNK][slot % CHUNK]
    }

    fn push(&mut self, record: StoredRecord) -> Slot {
        if self.0.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        let last = self.0.len() - 1;
        let chunk = &mut self.0[last];
        chunk.push(Some(record));
        let slot = last * CHUNK + chunk.len() - 1;
        Slot::try_from(slot).expect("a shard has fewer than 2^32 records")
    }
}
