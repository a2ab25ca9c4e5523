//! Decides what of a response is recorded: all of it, what the service redacted, or a receipt.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use crate::request::fingerprint::Fingerprint;
use crate::response::kept_headers::KeptHeaders;
use crate::store::Record;
use crate::trace::Event;

/// Changes a response of an endpoint before it is recorded. Returns an error when the function of the service
/// panics.
pub(crate) type Redact =
    dyn Fn(&str, StatusCode, &HeaderMap, Bytes) -> thread::Result<Response<Bytes>> + Send + Sync;

/// Wraps the function of a service. Only a service that redacts contains this code.
pub(crate) fn redacting(
    redact: impl Fn(&str, Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
) -> Box<Redact> {
    Box::new(move |endpoint, status, headers, body| {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        catch_unwind(AssertUnwindSafe(|| redact(endpoint, response)))
    })
}

/// How the responses of one endpoint are recorded.
#[derive(Clone, Copy)]
pub(crate) struct Recording<'a> {
    pub(crate) endpoint: &'static str,
    pub(crate) redact: Option<&'a Redact>,
    pub(crate) keeps_set_cookie: bool,
    pub(crate) records_body: bool,
}

impl Recording<'_> {
    /// Returns the record of a response. It says only that there was a response when the response does not fit the
    /// form of a record, or when the function of the service panics.
    ///
    /// `body` is not read for an endpoint with `record_body = none`.
    pub(crate) fn record(
        self,
        fingerprint: Fingerprint,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Record {
        let Some(redact) = self.redact else {
            return self.plain(fingerprint, status, headers, body);
        };
        let body = if self.records_body {
            body.clone()
        } else {
            Bytes::new()
        };
        let Ok(redacted) = redact(self.endpoint, status, headers, body) else {
            Event {
                endpoint: Some(self.endpoint),
                ..Event::default()
            }
            .error(
                "the redact function panicked; the response is not recorded, and retries get 409",
            );
            return Record::not_kept(fingerprint, status);
        };
        self.plain(fingerprint, status, redacted.headers(), redacted.body())
    }

    fn plain(
        self,
        fingerprint: Fingerprint,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Record {
        let kept = KeptHeaders::new(headers, self.keeps_set_cookie);
        let (kept, body) = if self.records_body {
            (kept, body)
        } else {
            (kept.receipt(), &[][..])
        };
        Record::response_with(fingerprint, status, || kept.iter(), body)
            .unwrap_or_else(|| Record::not_kept(fingerprint, status))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn a_receipt_has_the_status_and_no_header_of_the_body() {
        let mut headers = HeaderMap::new();
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
            headers.append(name, HeaderValue::from_static("secret"));
        }
        headers.insert(header::LOCATION, HeaderValue::from_static("/cards/1"));
        let recording = Recording {
            endpoint: "issue",
            redact: None,
            keeps_set_cookie: false,
            records_body: false,
        };
        let fingerprint = Fingerprint::from_bytes([1; 32]);
        let body = Bytes::from_static(b"secret");
        let record = recording.record(fingerprint, StatusCode::CREATED, &headers, &body);
        assert!(record.is_kept() && record.body().is_empty());
        assert_eq!(record.status(), 201);
        let headers = record.headers();
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        lines.sort_unstable();
        let expected = [
            ("idempotency-receipt", &b"true"[..]),
            ("location", b"/cards/1"),
        ];
        assert_eq!(lines, expected);
    }
}
