//! The entry under a record id, for operators.

use std::time::{Duration, SystemTime};

use super::{Origin, Record, State, Summary};
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;

/// The entry under a record id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Entry {
    /// A claim whose lease holds.
    InFlight {
        /// The fingerprint of the request that holds the claim.
        fingerprint: Fingerprint,
        /// The fence of the attempt.
        fence: u64,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// How long the claim holds if it is not renewed.
        lease_left: Duration,
        /// Where the first request came from.
        origin: Origin,
        /// When the first attempt claimed the record, by the clock of the store.
        created_at: SystemTime,
    },
    /// A claim that lapsed without a response.
    Unknown {
        /// The fingerprint of the request that was interrupted.
        fingerprint: Fingerprint,
        /// The fence of the attempt.
        fence: u64,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// How long the store will remember this claim.
        retained_for: Duration,
        /// Where the first request came from.
        origin: Origin,
        /// When the first attempt claimed the record, by the clock of the store.
        created_at: SystemTime,
    },
    /// A finished record.
    Recorded {
        /// The record to replay.
        record: Record,
        /// How long the record will be replayed.
        expires_in: Duration,
        /// Where the first request came from.
        origin: Origin,
        /// When the first attempt claimed the record, by the clock of the store.
        created_at: SystemTime,
        /// When the record was stored, by the clock of the store.
        settled_at: SystemTime,
    },
}

impl Entry {
    /// Where the first request came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        match self {
            Self::InFlight { origin, .. }
            | Self::Unknown { origin, .. }
            | Self::Recorded { origin, .. } => origin,
        }
    }

    /// When the first attempt claimed the record, by the clock of the store.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        match self {
            Self::InFlight { created_at, .. }
            | Self::Unknown { created_at, .. }
            | Self::Recorded { created_at, .. } => *created_at,
        }
    }

    /// Returns the entry as a listing shows it.
    #[must_use]
    pub fn summary(self, id: RecordId) -> Summary {
        let created_at = self.created_at();
        let (origin, state) = match self {
            Self::InFlight {
                fence,
                attempt,
                lease_left,
                origin,
                ..
            } => {
                let state = State::InFlight {
                    fence,
                    attempt,
                    lease_left,
                };
                (origin, state)
            }
            Self::Unknown {
                fence,
                attempt,
                retained_for,
                origin,
                ..
            } => {
                let state = State::Unknown {
                    fence,
                    attempt,
                    retained_for,
                };
                (origin, state)
            }
            Self::Recorded {
                record,
                expires_in,
                origin,
                settled_at,
                ..
            } => (origin, State::recorded(&record, settled_at, expires_in)),
        };
        Summary::new(id, origin, created_at, state)
    }
}
