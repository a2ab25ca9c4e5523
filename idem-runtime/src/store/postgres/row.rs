//! What the statements answer, read back.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::answer::Answer;
use super::failure::store_error;
use crate::store::{Claimed, DecodeError, Entry, Owner, Settled, StoreError};

/// What a claim's row says, or `None` where the race has to be run again.
pub(super) fn claimed(row: &PgRow, owner: Owner) -> Result<Option<Claimed>, StoreError> {
    let answer: Option<&[u8]> = get(row)?;
    let answer = answer.map(Answer::read).transpose()?;
    Ok(answer.map(|answer| answer.claimed(owner)))
}

/// What stands there.
pub(super) fn entry(row: &PgRow) -> Result<Entry, StoreError> {
    match Answer::read(get(row)?)? {
        Answer::Seen { entry, .. } => Ok(entry),
        Answer::Won { .. } => Err(StoreError::Undecodable(DecodeError::Damaged)),
    }
}

/// Whether a transition took effect.
pub(super) fn settled(row: &PgRow) -> Result<Settled, StoreError> {
    Ok(if done(row)? {
        Settled::Done
    } else {
        Settled::Lost
    })
}

pub(super) fn done(row: &PgRow) -> Result<bool, StoreError> {
    get(row)
}

/// By its place, for a name has to be looked for.
fn get<'r, T>(row: &'r PgRow) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(0).map_err(store_error)
}
