//! The headers of a response that is recorded without its body, for endpoints with `record_body = none`.

use http::{HeaderName, HeaderValue};

use crate::settings::dialect::Dialect;

static NAME: HeaderName = Dialect::RECEIPT_HEADER;
static VALUE: HeaderValue = HeaderValue::from_static("true");

/// Returns the header that marks a receipt.
pub(super) fn mark() -> (&'static HeaderName, &'static HeaderValue) {
    (&NAME, &VALUE)
}

/// Whether a header describes the body of its response.
pub(crate) fn describes_body(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-") || matches!(name, "etag" | "digest" | "repr-digest")
}
