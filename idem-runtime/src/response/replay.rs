//! Creates a response from a record.

use axum::body::Body;
use axum::response::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::request::headers;
use crate::store::Record;

/// Returns the recorded response, with the replay header if the service has one.
pub(crate) fn replay(record: &Record, replay_header: Option<&HeaderName>) -> Response {
    let mut response = Response::new(Body::from(record.body()));
    *response.status_mut() = record.status();
    let headers = response.headers_mut();
    record.append_headers(headers);
    mark_replay(headers, replay_header);
    response
}

/// Adds the headers that only a replay carries. Without a replay header, it adds nothing, because
/// every additional header would mark the replay.
fn mark_replay(headers: &mut HeaderMap, replay_header: Option<&HeaderName>) {
    let Some(name) = replay_header else {
        return;
    };
    headers.insert(name, HeaderValue::from_static("true"));
    if !headers::is_there(headers, &header::CACHE_CONTROL) {
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_marked_only_if_the_service_has_a_replay_header() {
        let mark = HeaderName::from_static("idempotency-replayed");
        let mut headers = HeaderMap::new();
        mark_replay(&mut headers, None);
        assert!(headers.is_empty());
        mark_replay(&mut headers, Some(&mark));
        assert_eq!(headers[&mark], "true");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("max-age=60"),
        );
        mark_replay(&mut headers, Some(&mark));
        assert_eq!(headers[header::CACHE_CONTROL], "max-age=60");
    }
}
