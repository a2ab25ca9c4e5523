//! What a caller learns about its key without sending the request again.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::store::Entry;

/// The state of a key, as [`Idempotency::status`](crate::Idempotency::status) returns it.
///
/// As a response it is a JSON object with the member `state`, and it is never cached:
///
/// | status of the key | response | body |
/// |---|---|---|
/// | [`InFlight`](Self::InFlight) | 200, `Retry-After: 1` | `{"state":"in_flight","attempt":1}` |
/// | [`Recorded`](Self::Recorded) | 200 | `{"state":"recorded","status":201,"kept":true}` |
/// | [`Unknown`](Self::Unknown) | 200 | `{"state":"unknown","attempt":1}` |
/// | [`Nothing`](Self::Nothing) | 404 | `{"state":"nothing"}` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyStatus {
    /// The first request with the key still runs.
    InFlight {
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// The request has finished, and retries get its response.
    Recorded {
        /// The status of the response.
        status: StatusCode,
        /// Whether the response itself was recorded. Otherwise a retry gets 409
        /// `idempotency_response_not_kept`.
        kept: bool,
    },
    /// The request was interrupted, and its outcome is unknown. With `on_unknown = rerun` a retry runs the
    /// handler again. With `hold` it gets 409.
    Unknown {
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// No request with the key is known: none has arrived, its key was released, or its record has expired.
    Nothing,
}

impl KeyStatus {
    pub(crate) fn of(entry: Option<&Entry>) -> Self {
        match entry {
            None => Self::Nothing,
            Some(Entry::InFlight { attempt, .. }) => Self::InFlight { attempt: *attempt },
            Some(Entry::Unknown { attempt, .. }) => Self::Unknown { attempt: *attempt },
            Some(Entry::Recorded { record, .. }) => Self::Recorded {
                status: record.status(),
                kept: record.is_kept(),
            },
        }
    }
}

impl IntoResponse for KeyStatus {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::InFlight { attempt } => (
                StatusCode::OK,
                format!("{{\"state\":\"in_flight\",\"attempt\":{attempt}}}"),
            ),
            Self::Recorded { status, kept } => (
                StatusCode::OK,
                format!(
                    "{{\"state\":\"recorded\",\"status\":{},\"kept\":{kept}}}",
                    status.as_u16()
                ),
            ),
            Self::Unknown { attempt } => (
                StatusCode::OK,
                format!("{{\"state\":\"unknown\",\"attempt\":{attempt}}}"),
            ),
            Self::Nothing => (StatusCode::NOT_FOUND, "{\"state\":\"nothing\"}".to_owned()),
        };
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let mut response = (status, headers, body).into_response();
        if matches!(self, Self::InFlight { .. }) {
            let wait = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, wait);
        }
        response
    }
}
