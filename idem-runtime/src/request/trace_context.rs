//! Which distributed trace a request belongs to: the header `traceparent`.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName};

use crate::request::{headers, hex};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id of a distributed trace, from the header `traceparent` (W3C Trace Context).
///
/// `Display` writes all 32 hexadecimal digits and `FromStr` reads them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// A trace id from its 16 bytes. `None` for zeros, which the standard forbids.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The trace that a request belongs to. `None` without a `traceparent` that the standard allows.
    pub(crate) fn of_request(headers: &HeaderMap) -> Option<Self> {
        // A search of the names alone takes half of the instructions, and many requests have no trace.
        if !headers::is_there(headers, &TRACEPARENT) {
            return None;
        }
        let mut values = headers::values(headers, &TRACEPARENT);
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        parse(value.as_bytes())
    }
}

/// Reads `00-<trace id>-<parent id>-<flags>`. A later version may add fields at the end.
fn parse(value: &[u8]) -> Option<TraceId> {
    const LEN: usize = 55;
    let [version, ..] = hex::read::<1>(value.get(..2)?)?;
    let is_whole = match value.get(LEN) {
        None => value.len() == LEN,
        Some(next) => version > 0 && *next == b'-',
    };
    let has_dashes =
        value.get(2) == Some(&b'-') && value.get(35) == Some(&b'-') && value.get(52) == Some(&b'-');
    if version == 0xff || !is_whole || !has_dashes {
        return None;
    }
    hex::read::<8>(&value[36..52])?;
    hex::read::<1>(&value[53..55])?;
    TraceId::from_bytes(hex::read(&value[3..35])?)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

/// The text is not 32 hexadecimal digits, or all of them are zero.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trace id is 32 hexadecimal digits, and not all of them are zero")]
pub struct ParseTraceIdError;

impl FromStr for TraceId {
    type Err = ParseTraceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::read(text.as_bytes())
            .and_then(Self::from_bytes)
            .ok_or(ParseTraceIdError)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn traced(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TRACEPARENT, HeaderValue::from_static(value));
        }
        TraceId::of_request(&headers).map(|id| id.to_string())
    }

    #[test]
    fn the_trace_id_comes_from_traceparent() {
        let first = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traced(&[first]).as_deref(), Some(TRACE));
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert_eq!(traced(&[later]).as_deref(), Some(TRACE));
        assert_eq!(traced(&[]), None);
        assert_eq!(traced(&[first, first]), None);
    }

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        for value in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bx-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(traced(&[value]), None, "{value}");
        }
    }

    #[test]
    fn a_trace_id_is_read_from_its_text() {
        let id: TraceId = TRACE.parse().expect("32 digits");
        assert_eq!(id.to_string(), TRACE);
        assert_eq!("0".repeat(32).parse::<TraceId>(), Err(ParseTraceIdError));
        assert_eq!("abc".parse::<TraceId>(), Err(ParseTraceIdError));
    }
}
