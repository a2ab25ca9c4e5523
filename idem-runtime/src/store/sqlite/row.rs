//! Reads the rows that the statements return.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::clock::{left, time};
use super::failure::{damaged, store_error};
use super::instance::{Instance, UNLOCKED};
use super::table::VERSION;
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::request::trace_context::TraceId;
use crate::settings::policy::OnUnknown;
use crate::store::{
    Claim, Claimed, CommitState, DecodeError, Entry, Holder, Origin, Owner, Record, State,
    StoreError, Summary,
};

/// The columns that decide a transition.
#[derive(Clone)]
pub(super) struct Held {
    version: i64,
    pub(super) fence: i64,
    pub(super) attempt: u32,
    pub(super) leased_until: i64,
    expires_at: i64,
    pub(super) retention: i64,
    fingerprint: Fingerprint,
    owner: Owner,
    record: Option<Bytes>,
    pub(super) instance: i64,
    trace_id: Option<TraceId>,
}

/// The row under an id, and the time of the read.
pub(super) type Look = Result<(Option<Held>, i64), StoreError>;

/// What a claim meets.
pub(super) enum Met {
    /// The claim has its result without a write.
    Claimed(Claimed),
    /// The store with this number holds the claim. The claim has this result unless that store has ended.
    InFlight(Claimed, i64),
    /// There is no entry, or only an expired entry.
    Nothing,
    /// A lapsed claim, whose outcome is unknown.
    Lapsed(Held),
}

impl Held {
    /// How many columns [`read`](Self::read) and the columns of a replay are.
    pub(super) const COLUMNS: usize = 13;

    /// Reads a row of `Statements::held` or `Statements::look_up`.
    pub(super) fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let fingerprint: &[u8] = column(row, 6)?;
        let owner: &[u8] = column(row, 7)?;
        let record: Option<&[u8]> = column(row, 8)?;
        Ok(Self {
            version: column(row, 0)?,
            fence: column(row, 1)?,
            attempt: u32::try_from(column::<i64>(row, 2)?).map_err(damaged)?,
            leased_until: column(row, 3)?,
            expires_at: column(row, 4)?,
            retention: column(row, 5)?,
            fingerprint: Fingerprint::from_bytes(fingerprint.try_into().map_err(damaged)?),
            owner: Owner::from_bytes(owner.try_into().map_err(damaged)?),
            record: record.map(Bytes::copy_from_slice),
            instance: column(row, 9)?,
            trace_id: trace_id(row, 12)?,
        })
    }

    /// Whether the row is a claim that reserves room for its record. A claim that was given up reserves none.
    pub(super) fn reserves_room(&self, now: i64) -> bool {
        self.record.is_none() && (self.leased_until > now || self.instance != UNLOCKED)
    }

    /// Whether the lease of a claim has lapsed, unless its store has extended the lease in another way.
    pub(super) fn may_be_extended(&self, now: i64) -> bool {
        self.record.is_none() && self.leased_until <= now && self.instance != UNLOCKED
    }

    /// Extends a lapsed lease as its store has done. `now` must be read before `instance` is asked: see
    /// [`Instance::hold_until`].
    pub(super) fn extended(mut self, instance: &Instance, now: i64) -> Self {
        if self.may_be_extended(now) {
            let until = instance.held_until(self.instance);
            if until > now {
                self.leased_until = until;
                self.expires_at = until.saturating_add(self.retention);
            }
        }
        self
    }

    /// Whether the claimer may run a lapsed claim again.
    pub(super) fn may_rerun(&self, claim: &Claim) -> bool {
        claim.on_unknown == OnUnknown::Rerun && self.fingerprint == claim.fingerprint
    }

    /// The result for a claimer that must not run the claim again.
    pub(super) fn unknown(self) -> Claimed {
        Claimed::Unknown {
            fingerprint: self.fingerprint,
        }
    }

    /// Whether the row counts. Expired rows wait for the sweeper.
    pub(super) fn is_alive(&self, now: i64) -> bool {
        self.expires_at > now
    }

    /// Whether the row changes its meaning after `from` and until `to`: its lease lapses, or the row expires.
    pub(super) fn ends_between(&self, from: i64, to: i64) -> bool {
        let is_between = |time| from < time && time <= to;
        is_between(self.expires_at) || self.record.is_none() && is_between(self.leased_until)
    }

    /// Whether the holder may settle or renew the claim.
    pub(super) fn is_held_by(&self, holder: &Holder, now: i64) -> bool {
        self.is_claim(now) && self.is_of(holder)
    }

    /// Whether the holder has already completed the claim with this record.
    pub(super) fn has_recorded(&self, holder: &Holder, record: &Record, now: i64) -> bool {
        self.is_alive(now)
            && self.is_of(holder)
            && self.record.as_deref() == Some(record.as_bytes())
    }

    /// Whether the holder won the row, be it a claim or a record.
    fn is_of(&self, holder: &Holder) -> bool {
        self.owner == holder.owner && u64::try_from(self.fence) == Ok(holder.fence)
    }

    /// Whether the row is the claim with this fence, and its outcome is unknown.
    pub(super) fn is_unknown(&self, fence: u64, now: i64) -> bool {
        self.is_claim(now) && self.leased_until <= now && u64::try_from(self.fence) == Ok(fence)
    }

    /// What became of the holder's transaction. A lapsed claim is still held until another attempt takes over.
    pub(super) fn commit_state(&self, holder: &Holder) -> Result<CommitState, StoreError> {
        self.check_version()?;
        Ok(match (self.is_of(holder), &self.record) {
            (true, Some(_)) => CommitState::Mine,
            (true, None) => CommitState::Held,
            (false, Some(_)) => CommitState::Others,
            (false, None) => CommitState::Gone,
        })
    }

    fn is_claim(&self, now: i64) -> bool {
        self.is_alive(now) && self.version == VERSION && self.record.is_none()
    }

    fn fence(&self) -> Result<u64, StoreError> {
        u64::try_from(self.fence).map_err(damaged)
    }

    fn check_version(&self) -> Result<(), StoreError> {
        if self.version == VERSION {
            return Ok(());
        }
        let version = u8::try_from(self.version).map_or(DecodeError::Damaged, DecodeError::Version);
        Err(StoreError::Undecodable(version))
    }
}

/// Decides a claim by the row under its id.
pub(super) fn meet(held: Option<Held>, claim: &Claim, now: i64) -> Result<Met, StoreError> {
    let Some(held) = held.filter(|held| held.is_alive(now)) else {
        return Ok(Met::Nothing);
    };
    held.check_version()?;
    if let Some(record) = held.record {
        return Ok(Met::Claimed(Claimed::Recorded {
            record: Record::decode(record)
                .map_err(StoreError::Undecodable)?
                .with_first_trace_id(held.trace_id),
            expires_in: left(held.expires_at),
        }));
    }
    if held.leased_until > now {
        if held.owner == claim.owner {
            return Ok(Met::Claimed(Claimed::Fresh {
                fence: held.fence()?,
                attempt: held.attempt,
            }));
        }
        let claimed = Claimed::InFlight {
            fingerprint: held.fingerprint,
            lease_left: left(held.leased_until),
            changed: None,
        };
        return Ok(Met::InFlight(claimed, held.instance));
    }
    Ok(Met::Lapsed(held))
}

/// Reads a row of `Statements::look_up`.
pub(super) fn entry(row: &SqliteRow, held: Held, now: i64) -> Result<Option<Entry>, StoreError> {
    if !held.is_alive(now) {
        return Ok(None);
    }
    held.check_version()?;
    let origin = origin(row, 12)?;
    let created_at = time(column(row, 10)?);
    let fence = held.fence()?;
    let (fingerprint, attempt) = (held.fingerprint, held.attempt);
    Ok(Some(match held.record {
        Some(record) => Entry::Recorded {
            record: Record::decode(record).map_err(StoreError::Undecodable)?,
            expires_in: left(held.expires_at),
            origin,
            created_at,
            settled_at: time(column::<Option<i64>>(row, 11)?.unwrap_or_default()),
        },
        None if held.leased_until > now => Entry::InFlight {
            fingerprint,
            fence,
            attempt,
            lease_left: left(held.leased_until),
            origin,
            created_at,
        },
        None => Entry::Unknown {
            fingerprint,
            fence,
            attempt,
            retained_for: left(held.expires_at),
            origin,
            created_at,
        },
    }))
}

/// Reads a row of a listing: its id, and the entry unless the row has expired.
pub(super) fn summary(
    row: &SqliteRow,
    now: i64,
) -> Result<(RecordId, Option<Summary>), StoreError> {
    let id: &[u8] = column(row, 0)?;
    let id = RecordId::from_bytes(id.try_into().map_err(damaged)?);
    let expires_at: i64 = column(row, 5)?;
    if expires_at <= now {
        return Ok((id, None));
    }
    let created_at = time(column(row, 6)?);
    let summary = Summary::new(
        id,
        origin(row, 8)?,
        created_at,
        state(row, expires_at, now)?,
    );
    Ok((id, Some(summary)))
}

fn state(row: &SqliteRow, expires_at: i64, now: i64) -> Result<State, StoreError> {
    let version: i64 = column(row, 1)?;
    if version != VERSION {
        let version = u8::try_from(version);
        return Ok(State::Unreadable(
            version.map_or(DecodeError::Damaged, DecodeError::Version),
        ));
    }
    let fence = u64::try_from(column::<i64>(row, 2)?);
    let attempt = u32::try_from(column::<i64>(row, 3)?);
    let (Ok(fence), Ok(attempt)) = (fence, attempt) else {
        return Ok(State::Unreadable(DecodeError::Damaged));
    };
    if let Some(head) = column::<Option<&[u8]>>(row, 12)? {
        let bytes: i64 = column(row, 11)?;
        return Ok(match Record::read_head(head) {
            Ok((status, is_kept)) => State::Recorded {
                status,
                is_kept,
                bytes: u64::try_from(bytes).unwrap_or_default(),
                settled_at: time(column::<Option<i64>>(row, 7)?.unwrap_or_default()),
                expires_in: left(expires_at),
            },
            Err(error) => State::Unreadable(error),
        });
    }
    let leased_until: i64 = column(row, 4)?;
    Ok(if leased_until > now {
        State::InFlight {
            fence,
            attempt,
            lease_left: left(leased_until),
        }
    } else {
        State::Unknown {
            fence,
            attempt,
            retained_for: left(expires_at),
        }
    })
}

/// Trace id, endpoint and label, from this column on.
fn origin(row: &SqliteRow, first: usize) -> Result<Origin, StoreError> {
    let trace_id = trace_id(row, first)?;
    let endpoint: String = column(row, first + 1)?;
    let label: Option<&str> = column(row, first + 2)?;
    Ok(Origin::new(endpoint)
        .with_trace_id(trace_id)
        .with_label(label.map(Arc::from)))
}

fn trace_id(row: &SqliteRow, at: usize) -> Result<Option<TraceId>, StoreError> {
    let bytes: Option<&[u8]> = column(row, at)?;
    Ok(bytes.and_then(|bytes| TraceId::from_bytes(bytes.try_into().ok()?)))
}

/// A whole number that is never negative.
pub(super) fn number(row: &SqliteRow, at: usize) -> Result<u64, StoreError> {
    u64::try_from(column::<i64>(row, at)?).map_err(damaged)
}

/// By index, because a lookup by name would have to search.
pub(super) fn column<'r, T>(row: &'r SqliteRow, at: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(at).map_err(store_error)
}
