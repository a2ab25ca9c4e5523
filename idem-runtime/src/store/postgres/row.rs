//! Reads the rows that the statements return.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::answer::Answer;
use super::failure::unavailable;
use crate::store::{Claimed, DecodeError, Entry, Settled, StoreError};

/// The result of a claim, or `None` after a lost race, when the claim has to be sent again.
pub(super) fn claimed(row: &PgRow) -> Result<Option<Claimed>, StoreError> {
    let answer: Option<&[u8]> = get(row)?;
    let answer = answer.map(Answer::read).transpose()?;
    Ok(answer.map(Answer::claimed))
}

pub(super) fn entry(row: &PgRow) -> Result<Entry, StoreError> {
    match Answer::read(get(row)?)? {
        Answer::Seen(entry) => Ok(entry),
        Answer::Won { .. } => Err(StoreError::Undecodable(DecodeError::Damaged)),
    }
}

/// The owner and the fence of a row.
pub(super) fn identity(row: &PgRow) -> Result<(Vec<u8>, i64), StoreError> {
    let fence = row.try_get(1).map_err(unavailable)?;
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

/// Reads by index, because a lookup by name would be slower.
fn get<'r, T>(row: &'r PgRow) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(0).map_err(unavailable)
}
