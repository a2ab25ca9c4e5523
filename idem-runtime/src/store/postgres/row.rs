//! Reads the rows that the statements return.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::failure::unavailable;
use super::listings::{Counted, Listed, kind_of};
use super::reply::Reply;
use crate::request::record_id::RecordId;
use crate::request::trace_context::TraceId;
use crate::store::millis::from_millis;
use crate::store::{
    Claimed, CommitState, DecodeError, Entry, Origin, Record, Settled, State, StateKind,
    StoreError, Summary,
};

/// The result of a claim, or `None` after a lost race, when the claim has to be sent again.
pub(super) fn claimed(row: &PgRow) -> Result<Option<Claimed>, StoreError> {
    let reply: Option<&[u8]> = get(row)?;
    let reply = reply.map(Reply::read).transpose()?;
    Ok(reply.map(Reply::claimed))
}

pub(super) fn entry(row: &PgRow) -> Result<Entry, StoreError> {
    match Reply::read(get(row)?)? {
        Reply::Seen(seen) => {
            let settled_at: Option<i64> = column(row, 2)?;
            let created_at = time(column(row, 1)?);
            Ok(seen.entry(origin(row, 3)?, created_at, settled_at.map(time)))
        }
        Reply::Won { .. } => Err(StoreError::Undecodable(DecodeError::Damaged)),
    }
}

/// A row of a listing, with the columns of `listing::list`.
pub(super) fn summary(row: &PgRow) -> Result<Listed, StoreError> {
    let id: &[u8] = column(row, 0)?;
    let id = <[u8; 32]>::try_from(id).map(RecordId::from_bytes);
    let id = id.map_err(|_| StoreError::Undecodable(DecodeError::Damaged))?;
    let Some(kind) = kind_of(column(row, 1)?) else {
        return Ok((id, None));
    };
    let created_at = time(column(row, 6)?);
    let entry = Summary::new(id, origin(row, 8)?, created_at, state(row, kind)?);
    Ok((id, Some(entry)))
}

fn state(row: &PgRow, kind: StateKind) -> Result<State, StoreError> {
    let version: i16 = column(row, 2)?;
    let (fence, attempt) = (column::<i64>(row, 3)?, column::<i32>(row, 4)?);
    let (Ok(fence), Ok(attempt)) = (u64::try_from(fence), u32::try_from(attempt)) else {
        return Ok(State::Unreadable(DecodeError::Damaged));
    };
    let left = from_millis(column(row, 5)?);
    Ok(match kind {
        StateKind::InFlight => State::InFlight {
            fence,
            attempt,
            lease_left: left,
        },
        StateKind::Unknown => State::Unknown {
            fence,
            attempt,
            retained_for: left,
        },
        StateKind::Recorded => {
            let (head, bytes): (&[u8], i32) = (column(row, 11)?, column(row, 12)?);
            match Record::read_head(head) {
                Ok((status, is_kept)) => State::Recorded {
                    status,
                    is_kept,
                    bytes: u64::try_from(bytes).unwrap_or_default(),
                    settled_at: time(column::<Option<i64>>(row, 7)?.unwrap_or_default()),
                    expires_in: left,
                },
                Err(error) => State::Unreadable(error),
            }
        }
        StateKind::Unreadable => {
            let version = u8::try_from(version);
            State::Unreadable(version.map_or(DecodeError::Damaged, DecodeError::Version))
        }
    })
}

/// Trace id, endpoint and label, from this column on.
fn origin(row: &PgRow, first: usize) -> Result<Origin, StoreError> {
    let trace_id: Option<&[u8]> = column(row, first)?;
    let trace_id = trace_id.and_then(|bytes| TraceId::from_bytes(bytes.try_into().ok()?));
    let endpoint: String = column(row, first + 1)?;
    let label: Option<&str> = column(row, first + 2)?;
    Ok(Origin::new(endpoint)
        .with_trace_id(trace_id)
        .with_label(label.map(Arc::from)))
}

/// The columns of `listing::stats`.
pub(super) fn stats(row: &PgRow) -> Result<Counted, StoreError> {
    let number = |at| column::<Option<i64>>(row, at).map(unsigned);
    Ok(Counted {
        claims: number(0)?,
        in_flight: number(1)?,
        unknown: number(2)?,
        records: number(3)?,
        live_records: number(4)?,
        estimated_rows: number(5)?,
        bytes: number(6)?,
    })
}

/// How many rows were removed, and how many of them had not expired.
pub(super) fn counts(row: &PgRow) -> Result<(u64, u64), StoreError> {
    let number = |at| column::<Option<i64>>(row, at).map(unsigned);
    Ok((number(0)?, number(1)?))
}

fn unsigned(number: Option<i64>) -> u64 {
    u64::try_from(number.unwrap_or_default()).unwrap_or_default()
}

/// A time from microseconds since 1970.
fn time(micros: i64) -> SystemTime {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    SystemTime::UNIX_EPOCH + since
}

/// The number that `statements::commit_state` selects.
pub(super) fn commit_state(row: &PgRow) -> Result<CommitState, StoreError> {
    Ok(match get::<i32>(row)? {
        1 => CommitState::Mine,
        2 => CommitState::Others,
        3 => CommitState::Held,
        _ => CommitState::Gone,
    })
}

/// The place in its batch to which a row belongs, from 0 on.
pub(super) fn place(row: &PgRow) -> Option<usize> {
    let place: i64 = column(row, 1).ok()?;
    usize::try_from(place).ok()?.checked_sub(1)
}

/// The owner and the fence of a row.
pub(super) fn identity(row: &PgRow) -> Result<(Vec<u8>, i64), StoreError> {
    let fence = column(row, 1)?;
    Ok((get(row)?, fence))
}

/// Whether a transition took effect.
pub(super) fn settled(is_done: bool) -> Settled {
    if is_done {
        Settled::Done
    } else {
        Settled::Lost
    }
}

/// Reads the first column, which says whether a statement took effect.
pub(super) fn done(row: &PgRow) -> Result<bool, StoreError> {
    get(row)
}

/// The first column. By index, because a lookup by name would have to search.
fn get<'r, T>(row: &'r PgRow) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    column(row, 0)
}

fn column<'r, T>(row: &'r PgRow, at: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(at).map_err(unavailable)
}
