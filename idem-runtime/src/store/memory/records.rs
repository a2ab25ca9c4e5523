//! A finished record.

use std::time::Duration;

use tokio::time::Instant;

use super::budget::Cost;
use super::claims::ClaimEntry;
use crate::request::record_id::RecordId;
use crate::store::{Origin, Record};

/// Bytes that an entry needs in addition to the bytes of its record, in the maps, the queue and the allocator.
/// Measured: from 375 to 410, depending on how full the maps are.
const KEEP: usize = 420;

/// The bytes that a record counts.
pub(super) fn weight(record: &Record, origin: &Origin) -> usize {
    record.as_bytes().len() + origin.heap_bytes() + KEEP
}

/// A finished record. It leaves the store only through the [`Queue`](super::queue::Queue) or when an
/// operator forgets it.
#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) record: Record,
    pub(super) expires_at: Instant,
    pub(super) settled_at: Instant,
    pub(super) created_at: Instant,
    pub(super) origin: Origin,
    /// Whether the scope pays for the record out of its share.
    pub(super) is_limited: bool,
}

impl StoredRecord {
    /// The record of a claim, for `ttl` from now. A `ttl` of more than 100 years overflows.
    pub(super) fn new(record: Record, held: ClaimEntry, ttl: Duration, now: Instant) -> Self {
        Self {
            record,
            expires_at: now + ttl,
            settled_at: now,
            created_at: held.created_at,
            origin: held.origin,
            is_limited: held.is_limited,
        }
    }

    pub(super) fn cost(&self, id: &RecordId) -> Cost {
        Cost {
            bytes: weight(&self.record, &self.origin),
            scope: self.is_limited.then(|| id.scope_id()),
        }
    }
}
