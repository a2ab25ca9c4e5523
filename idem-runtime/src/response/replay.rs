//! Makes a response from a record.

use axum::body::Body;
use axum::response::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::store::Record;

/// The recorded response, marked as a replay where the service marks them.
pub(crate) fn replay(record: &Record, replay_header: Option<&HeaderName>) -> Response {
    let mut response = Response::new(Body::from(record.body()));
    *response.status_mut() = record.status();
    let headers = response.headers_mut();
    record.append_headers(headers);
    mark_replay(headers, replay_header);
    response
}

/// Adds what only a replay carries: nothing where the service marks none, since any header that the
/// first answer did not have is a mark.
fn mark_replay(headers: &mut HeaderMap, replay_header: Option<&HeaderName>) {
    let Some(name) = replay_header else {
        return;
    };
    headers.insert(name, HeaderValue::from_static("true"));
    // An answer has few headers: to look at them all takes less than to hash one name.
    if !headers.keys().any(|name| *name == header::CACHE_CONTROL) {
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_marked_where_the_service_marks_them() {
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
