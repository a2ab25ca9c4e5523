//! How a handler keeps one response out of the store.

use axum::response::{IntoResponseParts, ResponseParts};

/// Turns one answer into "release": it goes to its client and is not recorded, and the next request
/// with the same key runs the handler again.
///
/// For an answer that a retry should not get, whatever its status:
///
/// ```
/// use axum::{http::StatusCode, response::IntoResponse};
/// use idem_runtime::DoNotRecord;
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
