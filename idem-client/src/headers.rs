//! The names of the headers that the server and the client use, as in the default dialect of the server.

use http::{HeaderMap, HeaderName};

/// The request header that contains the key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The response header that marks a replay with the value `true`.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The response header that marks a replay without a body with the value `true`. The service did not record the
/// body.
pub const IDEMPOTENCY_RECEIPT: HeaderName = HeaderName::from_static("idempotency-receipt");

/// The response header of a response that is not recorded yet, or that ran without protection.
pub const IDEMPOTENCY_DEGRADED: HeaderName = HeaderName::from_static("idempotency-degraded");

pub(crate) fn is_true(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers
        .get(name)
        .is_some_and(|value| value.as_bytes() == b"true")
}
