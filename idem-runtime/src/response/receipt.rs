//! Records a response without its body, for endpoints with `record_body = none`.

use axum::response::Response;
use http::{HeaderName, HeaderValue};

use crate::request::fingerprint::Fingerprint;
use crate::response::kept_headers::KeptHeaders;
use crate::settings::dialect::Dialect;
use crate::store::Record;

static NAME: HeaderName = Dialect::RECEIPT_HEADER;
static VALUE: HeaderValue = HeaderValue::from_static("true");

/// Returns the record of the status and the headers of a response, which marks its replays as receipts.
///
/// Headers that describe the body are left out.
pub(crate) fn record(
    response: &Response,
    fingerprint: Fingerprint,
    keeps_set_cookie: bool,
) -> Record {
    let headers = KeptHeaders::new(response.headers(), keeps_set_cookie);
    let kept = || {
        let kept = headers.iter().filter(|(name, _)| !describes_body(name));
        kept.chain([(&NAME, &VALUE)])
    };
    Record::answer_with(fingerprint, response.status(), kept, b"")
        .unwrap_or_else(|| Record::not_kept(fingerprint, response.status()))
}

fn describes_body(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-") || matches!(name, "etag" | "digest" | "repr-digest")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::header;

    use super::*;

    #[test]
    fn a_receipt_has_the_status_and_no_header_of_the_body() {
        let mut response = Response::new(Body::from("secret"));
        *response.status_mut() = http::StatusCode::CREATED;
        for name in [
            "content-type",
            "content-length",
            "content-encoding",
            "content-disposition",
            "content-digest",
            "etag",
            "digest",
            "repr-digest",
            "set-cookie",
            "idempotency-receipt",
        ] {
            let value = HeaderValue::from_static("secret");
            response.headers_mut().append(name, value);
        }
        let location = HeaderValue::from_static("/cards/1");
        response.headers_mut().insert(header::LOCATION, location);
        let record = record(&response, Fingerprint::from_bytes([1; 32]), false);
        assert!(record.is_kept() && record.body().is_empty());
        assert_eq!(record.status(), 201);
        let headers = record.headers();
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                ("idempotency-receipt", &b"true"[..]),
                ("location", b"/cards/1")
            ]
        );
    }
}
