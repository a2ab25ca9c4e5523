//! What the statements answer, read back.

use bytes::Bytes;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::failure::store_error;
use crate::fingerprint::Fingerprint;
use crate::store::millis::from_millis;
use crate::store::{Claimed, DecodeError, Entry, Owner, Record, Settled, StoreError};

/// What a claim's row says, or `None` where the race has to be run again.
pub(super) fn claimed(row: &PgRow, owner: Owner) -> Result<Option<Claimed>, StoreError> {
    if let Some(fence) = get::<Option<i64>>(row, "won_fence")? {
        return Ok(Some(Claimed::Fresh {
            fence: number(fence)?,
            attempt: number(get::<i32>(row, "won_attempt")?)?,
        }));
    }
    if get::<Option<&str>>(row, "state")?.is_none() || get::<bool>(row, "may_take_over")? {
        return Ok(None);
    }
    let claimed = match entry(row)? {
        Entry::InFlight { fence, attempt, .. }
            if get::<&[u8]>(row, "owner")? == owner.as_bytes() =>
        {
            Claimed::Fresh { fence, attempt }
        }
        Entry::InFlight {
            fingerprint,
            lease_left,
            ..
        } => Claimed::InFlight {
            fingerprint,
            lease_left,
            changed: None,
        },
        Entry::Unknown { fingerprint, .. } => Claimed::Unknown { fingerprint },
        Entry::Recorded { record, expires_in } => Claimed::Recorded { record, expires_in },
    };
    Ok(Some(claimed))
}

/// What stands there.
pub(super) fn entry(row: &PgRow) -> Result<Entry, StoreError> {
    let fingerprint = || -> Result<_, StoreError> {
        let bytes = <[u8; 32]>::try_from(get::<&[u8]>(row, "fingerprint")?);
        bytes
            .map(Fingerprint::from_bytes)
            .map_err(|_| unreadable(DecodeError::Damaged))
    };
    let fence = || number(get::<i64>(row, "fence")?);
    let attempt = || number(get::<i32>(row, "attempt")?);
    let expires_in = from_millis(get(row, "expires_in")?);
    match get::<&str>(row, "state")? {
        "in flight" => Ok(Entry::InFlight {
            fingerprint: fingerprint()?,
            fence: fence()?,
            attempt: attempt()?,
            lease_left: from_millis(get(row, "lease_left")?),
        }),
        "unknown" => Ok(Entry::Unknown {
            fingerprint: fingerprint()?,
            fence: fence()?,
            attempt: attempt()?,
            retained_for: expires_in,
        }),
        "recorded" => {
            let bytes = Bytes::from(get::<Vec<u8>>(row, "record")?);
            let record = Record::decode(bytes).map_err(unreadable)?;
            Ok(Entry::Recorded { record, expires_in })
        }
        _ => {
            let version = u8::try_from(get::<i16>(row, "version")?);
            Err(unreadable(
                version.map_or(DecodeError::Damaged, DecodeError::Version),
            ))
        }
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
    get(row, "done")
}

fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(store_error)
}

/// A number that is never negative in a row of ours.
fn number<N, T: TryFrom<N>>(number: N) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| unreadable(DecodeError::Damaged))
}

fn unreadable(error: DecodeError) -> StoreError {
    StoreError::Undecodable(error)
}
