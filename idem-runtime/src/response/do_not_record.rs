//! The marker with which a handler prevents the recording of its response.

use axum::response::{IntoResponseParts, ResponseParts};

/// Response part that keeps a response from being recorded. The client gets the response, and the key is
/// released. The next request with this key runs the handler again.
///
/// Use it in a response that a retry must not get, whatever its status is:
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum::{http::StatusCode, response::IntoResponse};
/// use axum_idem::DoNotRecord;
///
/// async fn confirm() -> impl IntoResponse {
///     (StatusCode::UNPROCESSABLE_ENTITY, DoNotRecord, "wrong code, try again")
/// }
/// # let _ = confirm;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DoNotRecord;

impl IntoResponseParts for DoNotRecord {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}
