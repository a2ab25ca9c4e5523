//! What the scripts answer, read back.

use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, ServerErrorKind, Value};

use crate::fingerprint::Fingerprint;
use crate::store::millis::from_millis;
use crate::store::{Claimed, DecodeError, Entry, Record, Settled, StoreError};

// As in `lua/head.lua`.
const NOTHING: i64 = 0;
const FRESH: i64 = 1;
const IN_FLIGHT: i64 = 2;
const RECORDED: i64 = 3;
const UNKNOWN: i64 = 4;
const UNREADABLE: i64 = 5;
const LOST: i64 = 0;
const DONE: i64 = 1;

/// Version, kind, owner and fence.
const RECORD_AT: usize = 26;
const VERSION: u8 = 1;

/// An answer of a script: what it found, and what belongs to that.
#[derive(Debug)]
pub(super) struct Reply {
    kind: i64,
    rest: std::vec::IntoIter<Value>,
}

impl Reply {
    /// # Errors
    ///
    /// When the answer is none of ours, or says that the value cannot be read.
    pub(super) fn new(value: Value) -> Result<Self, StoreError> {
        let Value::Array(values) = value else {
            return Err(not_ours());
        };
        let mut rest = values.into_iter();
        let kind = int(rest.next().as_ref())?;
        if kind == UNREADABLE {
            let version = u8::try_from(int(rest.next().as_ref())?).unwrap_or_default();
            return Err(unreadable(version));
        }
        Ok(Self { kind, rest })
    }

    pub(super) fn claimed(mut self) -> Result<Claimed, StoreError> {
        match self.kind {
            FRESH => Ok(Claimed::Fresh {
                fence: self.number()?,
                attempt: self.number()?,
            }),
            IN_FLIGHT => Ok(Claimed::InFlight {
                fingerprint: self.fingerprint()?,
                lease_left: from_millis(self.int()?),
                changed: None,
            }),
            RECORDED => Ok(Claimed::Recorded {
                record: self.record()?,
                expires_in: self.at_least()?,
            }),
            UNKNOWN => Ok(Claimed::Unknown {
                fingerprint: self.fingerprint()?,
            }),
            _ => Err(not_ours()),
        }
    }

    pub(super) fn settled(&self) -> Result<Settled, StoreError> {
        match self.kind {
            DONE => Ok(Settled::Done),
            LOST => Ok(Settled::Lost),
            _ => Err(not_ours()),
        }
    }

    pub(super) fn entry(mut self) -> Result<Option<Entry>, StoreError> {
        let entry = match self.kind {
            NOTHING => return Ok(None),
            RECORDED => Entry::Recorded {
                record: self.record()?,
                expires_in: self.at_least()?,
            },
            IN_FLIGHT => {
                let (fingerprint, lease_left) = (self.fingerprint()?, from_millis(self.int()?));
                Entry::InFlight {
                    fingerprint,
                    fence: self.number()?,
                    attempt: self.number()?,
                    lease_left,
                }
            }
            UNKNOWN => {
                let (fingerprint, retained_for) = (self.fingerprint()?, from_millis(self.int()?));
                Entry::Unknown {
                    fingerprint,
                    fence: self.number()?,
                    attempt: self.number()?,
                    retained_for,
                }
            }
            _ => return Err(not_ours()),
        };
        Ok(Some(entry))
    }

    fn int(&mut self) -> Result<i64, StoreError> {
        int(self.rest.next().as_ref())
    }

    fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        T::try_from(self.int()?).map_err(|_| not_ours())
    }

    /// What is left at least: the server's clock shows whole milliseconds, and is up to one late.
    fn at_least(&mut self) -> Result<Duration, StoreError> {
        Ok(from_millis(self.int()? - 1))
    }

    fn bytes(&mut self) -> Result<Bytes, StoreError> {
        match self.rest.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes.into()),
            _ => Err(not_ours()),
        }
    }

    fn fingerprint(&mut self) -> Result<Fingerprint, StoreError> {
        let bytes = self.bytes()?;
        let bytes = <[u8; 32]>::try_from(&bytes[..]).map_err(|_| damaged())?;
        Ok(Fingerprint::from_bytes(bytes))
    }

    fn record(&mut self) -> Result<Record, StoreError> {
        let value = self.bytes()?;
        if value.len() < RECORD_AT {
            return Err(damaged());
        }
        Record::decode(value.slice(RECORD_AT..)).map_err(StoreError::Undecodable)
    }
}

fn int(value: Option<&Value>) -> Result<i64, StoreError> {
    match value {
        Some(Value::Int(int)) => Ok(*int),
        _ => Err(not_ours()),
    }
}

/// Tells apart what a caller can do something about. No error is ever taken for an answer.
pub(super) fn store_error(error: RedisError) -> StoreError {
    if error.code() == Some("WRONGTYPE") {
        damaged()
    } else if error.is_timeout() {
        StoreError::TimedOut
    } else {
        StoreError::Unavailable(Box::new(error))
    }
}

/// Redis is over its `maxmemory` and refuses to write.
pub(super) fn is_out_of_memory(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}

pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}

/// An answer to something else, as from a proxy between.
fn not_ours() -> StoreError {
    StoreError::Unavailable("the server's answer is none that a script of this store gives".into())
}

fn damaged() -> StoreError {
    StoreError::Undecodable(DecodeError::Damaged)
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

    fn error(line: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error.into(),
            other => panic!("not an error: {other:?}"),
        }
    }

    #[test]
    fn no_error_of_the_server_is_an_answer() {
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "MOVED 3999 127.0.0.1:6381",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "NOREPLICAS Not enough good replicas to write.",
            "MISCONF Redis is configured to save RDB snapshots",
            "ERR unknown",
        ] {
            let error = store_error(error(line));
            assert!(matches!(error, StoreError::Unavailable(_)), "{line}");
        }
        assert!(is_out_of_memory(&error("OOM command not allowed")));
        assert!(is_unknown_script(&error("NOSCRIPT No matching script.")));
        let wrong_type = store_error(error("WRONGTYPE Operation against a key"));
        assert!(matches!(wrong_type, StoreError::Undecodable(_)));
    }

    #[test]
    fn an_answer_of_somebody_else_is_an_error() {
        for value in [
            Value::Nil,
            Value::Okay,
            Value::Array(vec![]),
            Value::Array(vec![Value::Okay]),
            Value::Array(vec![Value::Int(9)]),
            Value::Array(vec![Value::Int(FRESH), Value::Int(-1), Value::Int(1)]),
        ] {
            let claimed = Reply::new(value).and_then(Reply::claimed);
            assert!(matches!(claimed, Err(StoreError::Unavailable(_))));
        }
    }

    /// The server counts the millisecond that has begun.
    #[test]
    fn no_more_of_a_records_time_is_told_than_is_left() {
        let record = Record::not_kept(Fingerprint::from_bytes([1; 32]), http::StatusCode::OK);
        let mut value = vec![0; RECORD_AT];
        value.extend_from_slice(record.as_bytes());
        let value = Value::BulkString(value);
        let reply = vec![Value::Int(RECORDED), value, Value::Int(5)];
        let claimed = Reply::new(Value::Array(reply)).and_then(Reply::claimed);
        let Ok(Claimed::Recorded { expires_in, .. }) = claimed else {
            panic!("no record: {claimed:?}");
        };
        assert_eq!(expires_in, Duration::from_millis(4));
    }

    #[test]
    fn a_value_that_was_cut_off_holds_no_record() {
        for len in [0, RECORD_AT - 1, RECORD_AT, RECORD_AT + 1] {
            let value = Value::BulkString(vec![VERSION; len]);
            let reply = vec![Value::Int(RECORDED), value, Value::Int(5)];
            let claimed = Reply::new(Value::Array(reply)).and_then(Reply::claimed);
            assert!(
                matches!(claimed, Err(StoreError::Undecodable(DecodeError::Damaged))),
                "{len}: {claimed:?}"
            );
        }
    }

    #[test]
    fn another_version_is_named() {
        let value = Value::Array(vec![Value::Int(UNREADABLE), Value::Int(9)]);
        let error = Reply::new(value).err();
        assert!(matches!(
            error,
            Some(StoreError::Undecodable(DecodeError::Version(9)))
        ));
    }
}
