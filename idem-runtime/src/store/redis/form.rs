//! The binary form of the fields that a value holds in addition to a claim or a record: see `lua/head.lua`.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};

use crate::request::trace_context::TraceId;
use crate::store::{DecodeError, Holder, Origin, Record, State};

pub(super) const VERSION: u8 = 2;

/// Of a claim: version, kind, owner, fence, time of creation, attempt, fingerprint and retention.
const CLAIM: usize = 78;
/// Of a record: version, kind, owner, fence, time of creation, time of settling, length of the origin.
const RECORD: usize = 44;
/// The version and the kind, before the owner.
const OWNER: usize = 16;

/// Owner and fence, in the form of a stored value.
pub(super) fn holder_bytes(holder: Holder) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(holder.owner.as_bytes());
    bytes[16..].copy_from_slice(&holder.fence.to_le_bytes());
    bytes
}

/// The bytes of an origin.
pub(super) fn origin_bytes(origin: &Origin) -> Vec<u8> {
    let (endpoint, label) = (origin.endpoint(), origin.label().unwrap_or_default());
    let mut bytes = Vec::with_capacity(18 + endpoint.len() + label.len());
    let trace_id = origin.trace_id();
    bytes.extend_from_slice(trace_id.map_or([0; 16], |id| *id.as_bytes()).as_slice());
    for text in [endpoint, label] {
        // `Origin` cuts its texts to 255 bytes, so the length fits.
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        bytes.push(length);
        bytes.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    }
    bytes
}

/// Reads an origin, which ends with the bytes.
pub(super) fn origin(mut bytes: &[u8]) -> Result<Origin, DecodeError> {
    let damaged = |_| DecodeError::Damaged;
    let mut trace_id = [0; 16];
    bytes.try_copy_to_slice(&mut trace_id).map_err(damaged)?;
    let mut text = || {
        let length = usize::from(bytes.try_get_u8().map_err(damaged)?);
        let (text, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Damaged)?;
        bytes = rest;
        std::str::from_utf8(text).map_err(|_| DecodeError::Damaged)
    };
    let (endpoint, label) = (text()?, text()?);
    if !bytes.is_empty() {
        return Err(DecodeError::Damaged);
    }
    Ok(Origin::new(endpoint.to_owned())
        .with_trace_id(TraceId::from_bytes(trace_id))
        .with_label((!label.is_empty()).then(|| label.into())))
}

/// The trace in the origin of a record.
pub(super) fn trace_id_of(value: &[u8]) -> Option<TraceId> {
    let bytes = value.get(RECORD..RECORD + 16)?;
    TraceId::from_bytes(bytes.try_into().ok()?)
}

/// A time from microseconds since 1970.
pub(super) fn time(micros: u64) -> SystemTime {
    let since = Duration::from_micros(micros);
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The fields before the bytes of a record in its value.
pub(super) struct RecordHead {
    pub(super) created_at: SystemTime,
    pub(super) settled_at: SystemTime,
    pub(super) origin: Origin,
    /// Where the bytes of the record begin.
    pub(super) len: usize,
}

impl RecordHead {
    /// Where the bytes of a record begin, for a replay.
    pub(super) fn len(value: &[u8]) -> Result<usize, DecodeError> {
        let origin = value.get(RECORD - 2..RECORD).ok_or(DecodeError::Damaged)?;
        let len = RECORD + usize::from(u16::from_le_bytes([origin[0], origin[1]]));
        if value.len() < len {
            return Err(DecodeError::Damaged);
        }
        Ok(len)
    }

    pub(super) fn read(value: &[u8]) -> Result<Self, DecodeError> {
        let len = Self::len(value)?;
        let mut times = &value[2 + OWNER + 8..];
        Ok(Self {
            created_at: time(times.get_u64_le()),
            settled_at: time(times.get_u64_le()),
            origin: origin(&value[RECORD..len])?,
            len,
        })
    }
}

/// What a listing shows of a value.
pub(super) struct Shown {
    pub(super) origin: Origin,
    pub(super) created_at: SystemTime,
    pub(super) state: State,
}

impl Shown {
    /// Reads the beginning of a value of `length` bytes, whose key has `left` milliseconds.
    pub(super) fn read(value: &[u8], length: u64, left: i64) -> Self {
        Self::try_read(value, length, left).unwrap_or_else(|error| Self {
            origin: Origin::default(),
            created_at: SystemTime::UNIX_EPOCH,
            state: State::Unreadable(error),
        })
    }

    fn try_read(value: &[u8], length: u64, left: i64) -> Result<Self, DecodeError> {
        match value.first() {
            Some(&VERSION) => {}
            Some(&version) if version > 0 => return Err(DecodeError::Version(version)),
            _ => return Err(DecodeError::Damaged),
        }
        // A key without an expiry is not one of this store.
        let left = u64::try_from(left).map_err(|_| DecodeError::Damaged)?;
        match value.get(1) {
            Some(b'C') if value.len() >= CLAIM => {
                let mut fields = &value[2 + OWNER..];
                let fence = fields.get_u64_le();
                let created_at = time(fields.get_u64_le());
                let attempt = fields.get_u32_le();
                fields.advance(32);
                let retention = fields.get_u64_le();
                let state = match left.checked_sub(retention) {
                    Some(lease_left) if lease_left > 0 => State::InFlight {
                        fence,
                        attempt,
                        lease_left: Duration::from_millis(lease_left),
                    },
                    _ => State::Unknown {
                        fence,
                        attempt,
                        retained_for: Duration::from_millis(left),
                    },
                };
                Ok(Self {
                    origin: origin(&value[CLAIM..])?,
                    created_at,
                    state,
                })
            }
            Some(b'R') => {
                let head = RecordHead::read(value)?;
                // The origin and the times of a record are shown also when it is sealed.
                let state = match Record::read_head(&value[head.len..]) {
                    Ok((status, is_kept)) => State::Recorded {
                        status,
                        is_kept,
                        bytes: length.saturating_sub(head.len as u64),
                        settled_at: head.settled_at,
                        expires_in: Duration::from_millis(left.saturating_sub(1)),
                    },
                    Err(error) => State::Unreadable(error),
                };
                Ok(Self {
                    origin: head.origin,
                    created_at: head.created_at,
                    state,
                })
            }
            _ => Err(DecodeError::Damaged),
        }
    }
}

/// The reply of `lua/summary.lua`.
pub(super) fn summary(reply: &[u8]) -> Result<Shown, DecodeError> {
    let mut reply = reply;
    let left = reply.try_get_i64_le().map_err(|_| DecodeError::Damaged)?;
    let length = reply.try_get_u64_le().map_err(|_| DecodeError::Damaged)?;
    Ok(Shown::read(reply, length, left))
}

/// Returns the record of a value without the fields before the record.
pub(super) fn record_of(value: &Bytes) -> Result<Record, DecodeError> {
    let at = RecordHead::len(value)?;
    Record::decode(value.slice(at..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_from_its_bytes() {
        let trace_id = TraceId::from_bytes([7; 16]);
        for origin in [
            Origin::default(),
            Origin::new("desk::place_trade").with_trace_id(trace_id),
            Origin::new("x".repeat(255)).with_label(Some("größe".into())),
        ] {
            let bytes = origin_bytes(&origin);
            assert_eq!(super::origin(&bytes), Ok(origin));
            for len in 0..bytes.len() {
                assert_eq!(super::origin(&bytes[..len]), Err(DecodeError::Damaged));
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(super::origin(&longer), Err(DecodeError::Damaged));
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_shown_as_such() {
        let unreadable = |value: &[u8], left| match Shown::read(value, 0, left).state {
            State::Unreadable(error) => Some(error),
            _ => None,
        };
        assert_eq!(unreadable(b"", 1), Some(DecodeError::Damaged));
        assert_eq!(unreadable(b"\x09C", 1), Some(DecodeError::Version(9)));
        assert_eq!(unreadable(b"\x02X", 1), Some(DecodeError::Damaged));
        let mut claim = vec![VERSION, b'C'];
        claim.resize(CLAIM, 0);
        claim.extend_from_slice(&origin_bytes(&Origin::new("pay")));
        assert_eq!(unreadable(&claim, 1), None);
        assert_eq!(unreadable(&claim, -1), Some(DecodeError::Damaged));
        for len in 0..claim.len() {
            assert!(unreadable(&claim[..len], 1).is_some(), "{len} bytes");
        }
    }
}
