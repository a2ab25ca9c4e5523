//! Turns the response of a handler into a record, while the handler waits.

use std::future::poll_fn;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;

use crate::request::fingerprint::Fingerprint;
use crate::response::collect::{self, Collected, Collector, Patience};
use crate::response::recording::Recording;
use crate::store::Record;

/// Reads the body of a response, and returns its record and the response to send.
///
/// The record of a body that cannot be recorded says only that there was a response.
pub(crate) async fn record(
    response: Response,
    fingerprint: Fingerprint,
    limit: usize,
    patience: Patience,
    recording: Recording<'_>,
) -> (Record, Response) {
    let not_kept = Record::not_kept(fingerprint, response.status());
    if !recording.records_body {
        let headers = response.headers();
        let record = recording.record(fingerprint, response.status(), headers, &Bytes::new());
        return (record, response);
    }
    let announced = collect::announced_len(&response);
    if collect::cannot_be_kept(&response, announced, limit) {
        return (not_kept, response);
    }
    let (parts, mut body) = response.into_parts();
    let mut collector = Collector::new(announced, limit, patience);
    match poll_fn(|cx| collector.poll(&mut body, cx)).await {
        Collected::Whole(body) => {
            let record = recording.record(fingerprint, parts.status, &parts.headers, &body);
            (record, Response::from_parts(parts, Body::from(body)))
        }
        Collected::NotKept(body) => (not_kept, Response::from_parts(parts, body)),
    }
}
