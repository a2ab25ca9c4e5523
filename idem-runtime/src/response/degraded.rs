//! The header that marks a response with reduced protection.

use axum::response::Response;
use http::HeaderValue;

use crate::settings::dialect::Dialect;

/// Marks the response of a handler that ran although the store failed.
pub(crate) fn unprotected(response: Response) -> Response {
    marked(response, "true")
}

/// Marks a response whose record is not in the store yet.
pub(crate) fn unrecorded(response: Response) -> Response {
    marked(response, "unrecorded")
}

/// Marks a response that its handler may have committed, but whose record the store has not shown. The error of a
/// handler that could not commit is not marked.
pub(crate) fn unconfirmed(response: Response) -> Response {
    if response.status().is_server_error() {
        response
    } else {
        unrecorded(response)
    }
}

fn marked(mut response: Response, value: &'static str) -> Response {
    let value = HeaderValue::from_static(value);
    let name = Dialect::DEGRADED_HEADER;
    response.headers_mut().insert(name, value);
    response
}
