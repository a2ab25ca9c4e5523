//! The headers of a response that is recorded without its body, for endpoints with `record_body = none`.

use http::{HeaderName, HeaderValue};

use crate::settings::dialect::Dialect;

static NAME: HeaderName = Dialect::RECEIPT_HEADER;
static VALUE: HeaderValue = HeaderValue::from_static("true");

/// Returns the headers without those that describe the body, and the mark of a receipt.
pub(crate) fn headers<'a>(
    kept: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
    kept.filter(|(name, _)| !describes_body(name))
        .chain([(&NAME, &VALUE)])
}

/// Whether a header describes the body of its response.
pub(crate) fn describes_body(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-") || matches!(name, "etag" | "digest" | "repr-digest")
}
