//! Turns the response of a handler into a record, while the handler waits.

use std::future::poll_fn;

use axum::body::Body;
use axum::response::Response;

use crate::request::fingerprint::Fingerprint;
use crate::response::collect::{self, Collected, Collector, Patience};
use crate::response::kept_headers::KeptHeaders;
use crate::store::Record;

/// Reads the body of a response, and returns its record and the response to send.
///
/// The record of a body that cannot be recorded says only that there was a response.
pub(crate) async fn record(
    response: Response,
    fingerprint: Fingerprint,
    limit: usize,
    patience: Patience,
    keeps_set_cookie: bool,
) -> (Record, Response) {
    let not_kept = Record::not_kept(fingerprint, response.status());
    let announced = collect::announced_len(&response);
    if collect::cannot_be_kept(&response, announced, limit) {
        return (not_kept, response);
    }
    let (parts, mut body) = response.into_parts();
    let mut collector = Collector::new(announced, limit, patience);
    match poll_fn(|cx| collector.poll(&mut body, cx)).await {
        Collected::Whole(body) => {
            let headers = KeptHeaders::new(&parts.headers, keeps_set_cookie);
            let record = Record::answer_with(fingerprint, parts.status, || headers.iter(), &body);
            let response = Response::from_parts(parts, Body::from(body));
            (record.unwrap_or(not_kept), response)
        }
        Collected::NotKept(body) => (not_kept, Response::from_parts(parts, body)),
    }
}
