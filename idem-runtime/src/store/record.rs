//! The record of a response, in one buffer: the versioned form that every store uses.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::header_lines::{self, LINE_HEAD, Lines};
use crate::request::fingerprint::Fingerprint;
use crate::request::trace_context::TraceId;

/// The result of a finished attempt: a response to replay, or a note that the response was not
/// stored.
///
/// A record is one buffer in a frozen, versioned form. A store saves [`as_bytes`](Self::as_bytes)
/// and passes the bytes to [`decode`](Self::decode). All numbers are little-endian.
///
/// | bytes | meaning |
/// |---|---|
/// | 1 | version, now 1 |
/// | 1 | 0: the response follows · 1: the response was not stored · 2: sealed, see below |
/// | 32 | fingerprint of the request |
/// | 2 | status |
/// | 2 | number of header lines |
/// | 4 | length of the body |
/// | for each line: 2, 4, … | length of the name, length of the value, name, value |
/// | … | body |
///
/// A record whose response was not stored has no header lines and no body.
///
/// `store::Sealed` (feature `seal`) passes *sealed* records to the store below it. The status and the number of
/// header lines of a sealed record are 0, and its body is encrypted. Only `Sealed` can replay it. Without the
/// feature, a sealed record does not decode.
///
/// A record that a store returns for a claim may also contain the trace of its first request. The trace is not
/// part of the form, and two records are equal when their bytes are equal.
#[derive(Clone)]
pub struct Record {
    bytes: Bytes,
    first_trace_id: Option<TraceId>,
}

pub(super) const VERSION: u8 = 1;
const RESPONSE: u8 = 0;
const NOT_KEPT: u8 = 1;
pub(super) const SEALED: u8 = 2;
const FINGERPRINT: std::ops::Range<usize> = 2..34;
pub(super) const STATUS: usize = 34;
const LINES: usize = 36;
const BODY_LEN: usize = 38;
pub(super) const HEAD: usize = 42;
/// Well below the limit of a `HeaderMap`.
const MAX_LINES: u16 = 16_384;

/// The trace is not compared: a cache or an older store may not have it.
impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Record {}

/// Why bytes are not a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Another version of this library wrote the record.
    #[error("the record has version {0}; this library reads only version {VERSION}")]
    Version(u8),
    /// The record ends too early, or contains something that no response can contain.
    #[error("the record is damaged")]
    Damaged,
    /// The record is sealed, and the service has no `Sealed` around its store.
    #[error("the record is sealed; put `store::Sealed` with its key around the store")]
    Sealed,
    /// The record is not sealed, and the service accepts only sealed records.
    #[error("the record is not sealed, and this service accepts only sealed records")]
    NotSealed,
    /// The record is sealed with a key that the service does not have.
    #[error("the record is sealed with key {0}, which is not among the keys of this service")]
    MissingKey(u32),
    /// The record does not open. It was changed, it was moved from another record id, or the service has another
    /// key under the same key id.
    #[error(
        "the sealed record does not open: it was changed or moved, or this service has another key of that id"
    )]
    NotAuthentic,
}

impl Record {
    /// A record of a response.
    ///
    /// Returns `None` for a response that does not fit the form: more than 16,384 header lines, a
    /// header name of 64 KiB or more, a header value or a body of 4 GiB or more.
    #[must_use]
    pub fn answer(
        fingerprint: Fingerprint,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<Self> {
        Self::response_with(fingerprint, status, || headers.iter(), body)
    }

    /// A record of a response with only some of its headers. `headers` is called twice, and must
    /// return the same headers each time.
    pub(crate) fn response_with<'a, I>(
        fingerprint: Fingerprint,
        status: StatusCode,
        headers: impl Fn() -> I,
        body: &[u8],
    ) -> Option<Self>
    where
        I: Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    {
        let (mut lines, mut header_bytes) = (0, 0);
        for (name, value) in headers() {
            lines += 1;
            header_bytes += LINE_HEAD + name.as_str().len() + value.len();
        }
        let lines = u16::try_from(lines)
            .ok()
            .filter(|lines| *lines <= MAX_LINES)?;
        let body_len = u32::try_from(body.len()).ok()?;
        let mut buffer = Vec::with_capacity(HEAD + header_bytes + body.len());
        buffer.extend_from_slice(&head(RESPONSE, fingerprint, status, lines, body_len));
        for (name, value) in headers() {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            buffer.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
            buffer.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
            buffer.extend_from_slice(name);
            buffer.extend_from_slice(value);
        }
        buffer.extend_from_slice(body);
        Some(Self::of(buffer.into()))
    }

    /// A record of a finished attempt whose response was not stored.
    #[must_use]
    pub fn not_kept(fingerprint: Fingerprint, status: StatusCode) -> Self {
        let head = head(NOT_KEPT, fingerprint, status, 0, 0);
        Self::of(Bytes::copy_from_slice(&head))
    }

    /// A sealed record: bytes that begin with a [`sealed_head`].
    #[cfg(feature = "seal")]
    pub(super) const fn of_sealed(bytes: Bytes) -> Self {
        Self::of(bytes)
    }

    const fn of(bytes: Bytes) -> Self {
        Self {
            bytes,
            first_trace_id: None,
        }
    }

    /// Adds the trace of the first request: see [`Origin::trace_id`](super::Origin::trace_id). A store calls
    /// this for the record that it returns for a claim, so that the log of a replay leads to the trace that
    /// made the response.
    #[must_use]
    pub fn with_first_trace_id(mut self, trace_id: Option<TraceId>) -> Self {
        self.first_trace_id = trace_id;
        self
    }

    /// The trace of the first request, if the store has added it.
    #[must_use]
    pub fn first_trace_id(&self) -> Option<TraceId> {
        self.first_trace_id
    }

    /// Decodes bytes that [`as_bytes`](Self::as_bytes) returned.
    ///
    /// # Errors
    ///
    /// When the bytes have an unknown version, end too early, or contain something that no response
    /// can contain. The declared lengths are not trusted: nothing is allocated because of them.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) => return Err(DecodeError::Version(version)),
            None => return Err(DecodeError::Damaged),
        }
        let record = Self::of(bytes);
        if record.bytes.get(1) == Some(&SEALED) {
            return record.decode_sealed();
        }
        if record.bytes.len() < HEAD
            || record.bytes[1] > NOT_KEPT
            || record.u16_at(LINES) > MAX_LINES
            || StatusCode::from_u16(record.u16_at(STATUS)).is_err()
        {
            return Err(DecodeError::Damaged);
        }
        let mut lines = record.lines();
        for line in lines.by_ref() {
            if !line.is_some_and(header_lines::is_valid) {
                return Err(DecodeError::Damaged);
            }
        }
        let is_whole = record.bytes.len() - lines.at() == record.body_len();
        let is_consistent = record.is_kept() || record.bytes.len() == HEAD;
        if is_whole && is_consistent {
            Ok(record)
        } else {
            Err(DecodeError::Damaged)
        }
    }

    /// Checks the parts of a sealed record that are not encrypted.
    fn decode_sealed(self) -> Result<Self, DecodeError> {
        let is_whole = self.bytes.len() >= HEAD
            && self.u16_at(STATUS) == 0
            && self.u16_at(LINES) == 0
            && self.bytes.len() - HEAD == self.body_len();
        if !is_whole {
            Err(DecodeError::Damaged)
        } else if cfg!(feature = "seal") {
            Ok(self)
        } else {
            Err(DecodeError::Sealed)
        }
    }

    /// The status, and whether the response is there, from the first bytes of a record.
    #[cfg(any(feature = "redis", feature = "postgres", feature = "sqlite"))]
    pub(super) fn read_head(bytes: &[u8]) -> Result<(StatusCode, bool), DecodeError> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) => return Err(DecodeError::Version(version)),
            None => return Err(DecodeError::Damaged),
        }
        let head = bytes.get(..HEAD).ok_or(DecodeError::Damaged)?;
        if head[1] == SEALED {
            return Err(DecodeError::Sealed);
        }
        let status = u16::from_le_bytes([head[STATUS], head[STATUS + 1]]);
        let status = StatusCode::from_u16(status).map_err(|_| DecodeError::Damaged)?;
        Ok((status, head[1] == RESPONSE))
    }

    /// The bytes to save.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes. They have no other owner unless a clone of the record, or a store, has them too.
    #[cfg(feature = "seal")]
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The fingerprint of the request that got this response.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(&self.bytes[FINGERPRINT]);
        Fingerprint::from_bytes(fingerprint)
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.u16_at(STATUS)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the record has the response. A response that was too long, endless or interrupted is
    /// not stored.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.bytes[1] == RESPONSE
    }

    /// Whether the record is sealed, so that only `store::Sealed` can replay it.
    pub(crate) fn is_sealed(&self) -> bool {
        cfg!(feature = "seal") && self.bytes[1] == SEALED
    }

    /// The headers of the response. Repeated headers keep their order.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.append_headers(&mut headers);
        headers
    }

    pub(crate) fn append_headers(&self, headers: &mut HeaderMap) {
        // A replay adds its own headers and a length. Reserving room for them avoids a second
        // allocation.
        headers.reserve(usize::from(self.u16_at(LINES)) + 3);
        for line in self.lines() {
            let Some((name, value)) = line else { break };
            // Nearly every response has this header, and a constant name is cheaper than parsing.
            let name = if name == header::CONTENT_TYPE.as_str().as_bytes() {
                Ok(header::CONTENT_TYPE)
            } else {
                HeaderName::from_bytes(name)
            };
            // The value shares the record's buffer, as the body does.
            let value = HeaderValue::from_maybe_shared(self.bytes.slice_ref(value));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
    }

    /// The body of the response. It shares the record's buffer.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(self.bytes.len() - self.body_len()..)
    }

    fn body_len(&self) -> usize {
        let mut len = [0; 4];
        len.copy_from_slice(&self.bytes[BODY_LEN..HEAD]);
        u32::from_le_bytes(len) as usize
    }

    fn lines(&self) -> Lines<'_> {
        Lines::new(&self.bytes, HEAD, self.u16_at(LINES))
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }
}

fn head(
    kind: u8,
    fingerprint: Fingerprint,
    status: StatusCode,
    lines: u16,
    body_len: u32,
) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0] = VERSION;
    head[1] = kind;
    head[FINGERPRINT].copy_from_slice(fingerprint.as_bytes());
    head[STATUS..LINES].copy_from_slice(&status.as_u16().to_le_bytes());
    head[LINES..BODY_LEN].copy_from_slice(&lines.to_le_bytes());
    head[BODY_LEN..].copy_from_slice(&body_len.to_le_bytes());
    head
}

/// The first bytes of a sealed record, whose encrypted part follows.
#[cfg(feature = "seal")]
pub(super) fn sealed_head(fingerprint: Fingerprint, len: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0] = VERSION;
    head[1] = SEALED;
    head[FINGERPRINT].copy_from_slice(fingerprint.as_bytes());
    head[BODY_LEN..].copy_from_slice(&len.to_le_bytes());
    head
}

/// Shows only what an operator needs, because headers and body may contain secrets.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("status", &self.status())
            .field("kept", &self.is_kept())
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
