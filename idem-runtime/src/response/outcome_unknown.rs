//! How a handler says that it does not know whether its effect happened.

use axum::response::{IntoResponseParts, ResponseParts};

/// Response part for a handler that does not know whether its effect happened.
///
/// The client gets the response, and the response is not recorded. The key becomes unknown and follows
/// the endpoint's `on_unknown`. With `rerun`, the next request with this key runs the handler as the next
/// attempt. With `hold`, it gets 409 `idempotency_outcome_unknown` until an operator resolves the key
/// or the `ttl` passes.
///
/// `OutcomeUnknown` wins over the endpoint's `record` and over [`DoNotRecord`](crate::DoNotRecord).
/// `unknown = [502, 504]` in the attribute says the same for every response with one of these statuses.
/// In a rejection of the body extractor, this part makes the key unknown too. Without this part, the
/// rejection releases the key.
///
/// # Examples
///
/// A charge whose downstream timed out may or may not have happened:
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum::{http::StatusCode, response::IntoResponse};
/// use axum_idem::OutcomeUnknown;
///
/// async fn charge() -> impl IntoResponse {
///     (StatusCode::GATEWAY_TIMEOUT, OutcomeUnknown, "the bank did not respond in time")
/// }
/// # let _ = charge;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OutcomeUnknown;

impl IntoResponseParts for OutcomeUnknown {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}
