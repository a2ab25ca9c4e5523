//! The entry under an id. The server packs it into bytes, and this module reads the bytes.
//!
//! One value is cheaper for both sides than one column for each part.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};

use super::sql::VERSION;
use crate::request::fingerprint::Fingerprint;
use crate::request::trace_context::TraceId;
use crate::store::millis::from_millis;
use crate::store::{Claimed, DecodeError, Entry, Origin, Record, StoreError};

/// A claim that the caller won: its kind, fence and attempt.
pub(super) const WON: &str = "int4send(1) || int8send(r.fence) || int4send(r.attempt)";

/// A record: its kind, the time that is left, the trace of its first request, and its bytes. `NULL` for a claim.
pub(super) const RECORDED: &str = "int4send(2) || interval_send(r.expires_at - now)
        || coalesce(r.trace_id, decode(repeat('00', 16), 'hex')) || r.record";

/// The entry in the row `r` at the time `now`, of any kind.
pub(super) fn seen() -> String {
    format!(
        "CASE
    WHEN r.version <> {VERSION} THEN int4send(5) || int2send(r.version)
    WHEN r.record IS NOT NULL THEN {RECORDED}
    WHEN r.leased_until > now THEN int4send(3) || interval_send(r.leased_until - now)
        || int8send(r.fence) || int4send(r.attempt) || r.fingerprint
    ELSE int4send(4) || interval_send(r.expires_at - now)
        || int8send(r.fence) || int4send(r.attempt) || r.fingerprint
END"
    )
}

/// The decoded reply of the server.
pub(super) enum Reply {
    Won { fence: u64, attempt: u32 },
    Seen(Seen),
}

/// An entry without the columns that only an operator needs.
pub(super) enum Seen {
    InFlight {
        fingerprint: Fingerprint,
        fence: u64,
        attempt: u32,
        lease_left: Duration,
    },
    Unknown {
        fingerprint: Fingerprint,
        fence: u64,
        attempt: u32,
        retained_for: Duration,
    },
    Recorded {
        record: Record,
        expires_in: Duration,
    },
}

impl Seen {
    /// The entry, with the columns that only an operator needs.
    pub(super) fn entry(
        self,
        origin: Origin,
        created_at: SystemTime,
        settled_at: Option<SystemTime>,
    ) -> Entry {
        match self {
            Self::InFlight {
                fingerprint,
                fence,
                attempt,
                lease_left,
            } => Entry::InFlight {
                fingerprint,
                fence,
                attempt,
                lease_left,
                origin,
                created_at,
            },
            Self::Unknown {
                fingerprint,
                fence,
                attempt,
                retained_for,
            } => Entry::Unknown {
                fingerprint,
                fence,
                attempt,
                retained_for,
                origin,
                created_at,
            },
            Self::Recorded { record, expires_in } => Entry::Recorded {
                record,
                expires_in,
                origin,
                created_at,
                settled_at: settled_at.unwrap_or(created_at),
            },
        }
    }
}

impl Reply {
    /// # Errors
    ///
    /// When the row has another version or is damaged.
    pub(super) fn read(mut bytes: &[u8]) -> Result<Self, StoreError> {
        let bytes = &mut bytes;
        let reply = match bytes.try_get_i32().map_err(damaged)? {
            1 => Self::Won {
                fence: number(bytes.try_get_i64())?,
                attempt: number(bytes.try_get_i32())?,
            },
            2 => {
                let expires_in = time(bytes)?;
                let mut trace_id = [0; 16];
                bytes.try_copy_to_slice(&mut trace_id).map_err(damaged)?;
                let record = Record::decode(Bytes::copy_from_slice(bytes));
                let record = record
                    .map_err(StoreError::Undecodable)?
                    .with_first_trace_id(TraceId::from_bytes(trace_id));
                Self::Seen(Seen::Recorded { record, expires_in })
            }
            kind @ (3 | 4) => {
                let left = time(bytes)?;
                let fence = number(bytes.try_get_i64())?;
                let attempt = number(bytes.try_get_i32())?;
                let fingerprint = <[u8; 32]>::try_from(*bytes).map_err(damaged)?;
                let fingerprint = Fingerprint::from_bytes(fingerprint);
                Self::Seen(if kind == 3 {
                    Seen::InFlight {
                        fingerprint,
                        fence,
                        attempt,
                        lease_left: left,
                    }
                } else {
                    Seen::Unknown {
                        fingerprint,
                        fence,
                        attempt,
                        retained_for: left,
                    }
                })
            }
            _ => {
                let version = u8::try_from(bytes.try_get_i16().map_err(damaged)?);
                let error = version.map_or(DecodeError::Damaged, DecodeError::Version);
                return Err(StoreError::Undecodable(error));
            }
        };
        Ok(reply)
    }

    /// The result of a claim.
    pub(super) fn claimed(self) -> Claimed {
        match self {
            Self::Won { fence, attempt } => Claimed::Fresh { fence, attempt },
            Self::Seen(seen) => match seen {
                Seen::InFlight {
                    fingerprint,
                    lease_left,
                    ..
                } => Claimed::InFlight {
                    fingerprint,
                    lease_left,
                    changed: None,
                },
                Seen::Unknown { fingerprint, .. } => Claimed::Unknown { fingerprint },
                Seen::Recorded { record, expires_in } => Claimed::Recorded { record, expires_in },
            },
        }
    }
}

/// Reads an interval, in whole milliseconds. PostgreSQL sends microseconds, days and months. The
/// difference of two times never has months.
fn time(bytes: &mut &[u8]) -> Result<Duration, StoreError> {
    const DAY: i64 = 24 * 60 * 60 * 1_000_000;
    let micros = bytes.try_get_i64().map_err(damaged)?;
    let days = bytes.try_get_i32().map_err(damaged)?;
    bytes.try_get_i32().map_err(damaged)?;
    let micros = i64::from(days).saturating_mul(DAY).saturating_add(micros);
    Ok(from_millis(micros.div_euclid(1000)))
}

/// A number that is never negative in a row of this store.
fn number<N, T: TryFrom<N>, E>(number: Result<N, E>) -> Result<T, StoreError> {
    T::try_from(number.map_err(damaged)?).map_err(damaged)
}

fn damaged<E>(_: E) -> StoreError {
    StoreError::Undecodable(DecodeError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For the difference of two times, PostgreSQL sends the days separately.
    #[test]
    fn the_time_left_is_rounded_down_to_milliseconds() {
        for (micros, days, millis) in [
            (0_i64, 0_i32, 0),
            (999, 0, 0),
            (1_000, 0, 1),
            (1_999, 0, 1),
            (1_000, 1, 86_400_001),
            (-1, 1, 86_399_999),
            (0, 400, 34_560_000_000),
            (-1, 0, 0),
        ] {
            let sent = [&micros.to_be_bytes()[..], &days.to_be_bytes(), &[0; 4]].concat();
            let left = time(&mut &sent[..]).expect("an interval");
            assert_eq!(left, Duration::from_millis(millis), "{micros} and {days}");
        }
    }
}
