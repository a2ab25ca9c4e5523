//! Reads the replies of the scripts.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use redis::Value;

use super::form::{self, RecordHead, Shown, VERSION};
use crate::request::fingerprint::Fingerprint;
use crate::store::{Claimed, DecodeError, Entry, Origin, Record, Settled, StoreError};

// These numbers must match `lua/head.lua`.
const NOTHING: u8 = 0;
const FRESH: u8 = 1;
const IN_FLIGHT: u8 = 2;
const RECORDED: u8 = 3;
const UNKNOWN: u8 = 4;
const UNREADABLE: u8 = 5;
const TOO_LATE: u8 = 6;
const LOST: u8 = 0;
const DONE: u8 = 1;

/// The reply of a script: its kind, and the data for that kind.
#[derive(Debug)]
pub(super) struct Reply {
    kind: u8,
    rest: Bytes,
}

/// A claim in a reply.
struct Found {
    left: Duration,
    fence: u64,
    attempt: u32,
    fingerprint: Fingerprint,
    created_at: SystemTime,
    origin: Origin,
}

impl Reply {
    /// # Errors
    ///
    /// When the reply does not come from a store script, or says that the value cannot be read.
    pub(super) fn new(value: Value) -> Result<Self, StoreError> {
        let mut reply = match value {
            Value::Int(kind) => Self {
                kind: u8::try_from(kind).map_err(|_| not_ours())?,
                rest: Bytes::new(),
            },
            Value::BulkString(bytes) => {
                let mut rest = Bytes::from(bytes);
                let kind = rest.try_get_u8().map_err(|_| not_ours())?;
                Self { kind, rest }
            }
            _ => return Err(not_ours()),
        };
        if reply.kind == UNREADABLE {
            let version = reply.rest.try_get_u8().map_err(|_| not_ours())?;
            return Err(unreadable(version));
        }
        Ok(reply)
    }

    pub(super) fn claimed(self) -> Result<Claimed, StoreError> {
        match self.kind {
            FRESH => self.fresh(),
            IN_FLIGHT => {
                let found = self.found()?;
                Ok(Claimed::InFlight {
                    fingerprint: found.fingerprint,
                    lease_left: found.left,
                    changed: None,
                })
            }
            RECORDED => {
                let (record, expires_in) = self.record()?;
                Ok(Claimed::Recorded { record, expires_in })
            }
            UNKNOWN => Ok(Claimed::Unknown {
                fingerprint: self.found()?.fingerprint,
            }),
            _ => Err(not_ours()),
        }
    }

    /// The server's clock in microseconds, when the server executed a claim after its deadline.
    pub(super) fn too_late(&self) -> Option<u64> {
        let clock = <[u8; 8]>::try_from(&self.rest[..]).ok()?;
        (self.kind == TOO_LATE).then(|| u64::from_le_bytes(clock))
    }

    /// Identifies who stored the value, in the form that `forget.lua` compares. `None` without a
    /// value.
    pub(super) fn identity(&self) -> Option<Vec<u8>> {
        (self.kind != NOTHING).then(|| [&[self.kind], &self.rest[..]].concat())
    }

    pub(super) fn settled(&self) -> Result<Settled, StoreError> {
        match self.kind {
            _ if !self.rest.is_empty() => Err(not_ours()),
            DONE => Ok(Settled::Done),
            LOST => Ok(Settled::Lost),
            _ => Err(not_ours()),
        }
    }

    pub(super) fn entry(self) -> Result<Option<Entry>, StoreError> {
        let entry = match self.kind {
            NOTHING => return Ok(None),
            RECORDED => {
                let head = self.rest.get(8..).unwrap_or_default();
                let head = RecordHead::read(head).map_err(StoreError::Undecodable)?;
                let (record, expires_in) = self.record()?;
                Entry::Recorded {
                    record,
                    expires_in,
                    origin: head.origin,
                    created_at: head.created_at,
                    settled_at: head.settled_at,
                }
            }
            IN_FLIGHT => {
                let found = self.found()?;
                Entry::InFlight {
                    fingerprint: found.fingerprint,
                    fence: found.fence,
                    attempt: found.attempt,
                    lease_left: found.left,
                    origin: found.origin,
                    created_at: found.created_at,
                }
            }
            UNKNOWN => {
                let found = self.found()?;
                Entry::Unknown {
                    fingerprint: found.fingerprint,
                    fence: found.fence,
                    attempt: found.attempt,
                    retained_for: found.left,
                    origin: found.origin,
                    created_at: found.created_at,
                }
            }
            _ => return Err(not_ours()),
        };
        Ok(Some(entry))
    }

    fn fresh(mut self) -> Result<Claimed, StoreError> {
        let (fence, attempt) = (self.number()?, self.attempt()?);
        self.ends_with(Claimed::Fresh { fence, attempt })
    }

    fn found(mut self) -> Result<Found, StoreError> {
        let left = Duration::from_millis(self.number()?);
        let fence = self.number()?;
        let created_at = form::time(self.number()?);
        let attempt = self.attempt()?;
        let mut fingerprint = [0; 32];
        self.rest
            .try_copy_to_slice(&mut fingerprint)
            .map_err(|_| not_ours())?;
        let _retention = self.number()?;
        Ok(Found {
            left,
            fence,
            attempt,
            fingerprint: Fingerprint::from_bytes(fingerprint),
            created_at,
            origin: form::origin(&self.rest).map_err(StoreError::Undecodable)?,
        })
    }

    /// What a listing shows of a value. `None` when nothing is there.
    pub(super) fn summary(value: &Value) -> Result<Option<Shown>, StoreError> {
        match value {
            Value::Int(0) => Ok(None),
            Value::BulkString(reply) => form::summary(reply).map(Some).map_err(|_| not_ours()),
            _ => Err(not_ours()),
        }
    }

    /// The record, and the least time it has left. The server shows whole milliseconds, and may be
    /// up to one millisecond late.
    fn record(mut self) -> Result<(Record, Duration), StoreError> {
        let left = Duration::from_millis(self.number()?.saturating_sub(1));
        let record = form::record_of(&self.rest).map_err(StoreError::Undecodable)?;
        Ok((
            record.with_first_trace_id(form::trace_id_of(&self.rest)),
            left,
        ))
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        self.rest.try_get_u64_le().map_err(|_| not_ours())
    }

    fn attempt(&mut self) -> Result<u32, StoreError> {
        self.rest.try_get_u32_le().map_err(|_| not_ours())
    }

    fn ends_with<T>(&self, last: T) -> Result<T, StoreError> {
        if self.rest.is_empty() {
            Ok(last)
        } else {
            Err(not_ours())
        }
    }
}

fn not_ours() -> StoreError {
    StoreError::Unavailable(
        "unexpected reply to a store script; does a proxy rewrite replies?".into(),
    )
}

fn unreadable(version: u8) -> StoreError {
    StoreError::Undecodable(if version == VERSION {
        DecodeError::Damaged
    } else {
        DecodeError::Version(version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes before a record without an origin.
    const HEAD: [u8; 62] = {
        let mut head = [0; 62];
        head[42] = 18;
        head
    };

    fn packed(kind: u8, parts: &[&[u8]]) -> Value {
        Value::BulkString([&[kind], &parts.concat()[..]].concat())
    }

    #[test]
    fn a_reply_of_another_form_is_an_error() {
        let (number, attempt) = (7_u64.to_le_bytes(), 1_u32.to_le_bytes());
        for value in [
            Value::Nil,
            Value::Okay,
            Value::Array(vec![Value::Int(1)]),
            Value::Int(1),
            Value::Int(9),
            Value::Int(257),
            Value::Int(-1),
            Value::BulkString(vec![]),
            packed(9, &[]),
            packed(UNREADABLE, &[]),
            packed(FRESH, &[&number]),
            packed(FRESH, &[&number, &attempt, b"x"]),
            packed(IN_FLIGHT, &[&number, &number, &attempt, &[0; 31]]),
            packed(UNKNOWN, &[&number, &number, &attempt, &[0; 33]]),
            packed(RECORDED, &[b"short"]),
        ] {
            let claimed = Reply::new(value).and_then(Reply::claimed);
            assert!(matches!(claimed, Err(StoreError::Unavailable(_))));
        }
        let settled = Reply::new(packed(DONE, &[b"x"])).and_then(|reply| reply.settled());
        assert!(matches!(settled, Err(StoreError::Unavailable(_))));
    }

    /// The server counts the current millisecond as a whole one.
    #[test]
    fn the_reported_time_of_a_record_is_never_too_long() {
        let record = Record::not_kept(Fingerprint::from_bytes([1; 32]), http::StatusCode::OK);
        for (told, left) in [(5_u64, 4), (1, 0), (0, 0)] {
            let value = [&HEAD[..], &record.as_bytes()[..]].concat();
            let reply = packed(RECORDED, &[&told.to_le_bytes(), &value]);
            let claimed = Reply::new(reply).and_then(Reply::claimed);
            let Ok(Claimed::Recorded { expires_in, .. }) = claimed else {
                panic!("no record: {claimed:?}");
            };
            assert_eq!(expires_in, Duration::from_millis(left));
        }
    }

    #[test]
    fn a_truncated_value_is_damaged() {
        let record = Record::not_kept(Fingerprint::from_bytes([1; 32]), http::StatusCode::OK);
        let value = [&HEAD[..], &record.as_bytes()[..]].concat();
        for len in 0..value.len() {
            let reply = packed(RECORDED, &[&5_u64.to_le_bytes(), &value[..len]]);
            let claimed = Reply::new(reply).and_then(Reply::claimed);
            assert!(
                matches!(claimed, Err(StoreError::Undecodable(DecodeError::Damaged))),
                "{len}: {claimed:?}"
            );
        }
    }

    #[test]
    fn decoding_another_version_reports_that_version() {
        let error = Reply::new(packed(UNREADABLE, &[&[9]])).err();
        assert!(matches!(
            error,
            Some(StoreError::Undecodable(DecodeError::Version(9)))
        ));
    }
}
