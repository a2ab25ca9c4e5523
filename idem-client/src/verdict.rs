//! Decides whether a response asks for a retry, and whether it leaves the outcome of its operation open.

use http::{HeaderMap, StatusCode};

use crate::policy::Policy;
use crate::{Problem, codes};

/// What one try says about its operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    /// Whether a retry can get another response.
    pub(crate) is_temporary: bool,
    /// Whether the operation may have happened, and the try does not report its outcome.
    pub(crate) leaves_open: bool,
}

impl Verdict {
    /// The verdict on a request whose response did not arrive.
    pub(crate) const LOST: Self = Self {
        is_temporary: true,
        leaves_open: true,
    };

    /// The verdict on a response. For a write, `body` is the whole body. For a read it is empty, unless the status
    /// [asks for it](depends_on_code).
    pub(crate) fn on(
        policy: &Policy,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        // The server has recorded a response that it replays, so a retry would get the same response.
        if policy.reports_outcome(status, headers) {
            return Self {
                is_temporary: false,
                leaves_open: false,
            };
        }
        let code = Problem::code_in(body).unwrap_or_default();
        let is_temporary = if depends_on_code(status) {
            is_retried_code(&code)
        } else {
            let is_permanent =
                status == StatusCode::INTERNAL_SERVER_ERROR && is_permanent_code(&code);
            is_retried(status) && !is_permanent
        };
        let leaves_open = if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            !is_code_without_effect(&code)
        } else {
            is_code_of_open_outcome(&code)
        };
        Self {
            is_temporary,
            leaves_open,
        }
    }
}

/// Whether the status alone asks for a retry.
fn is_retried(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        )
}

/// Whether the code in the body of a response with this status can ask for a retry.
pub(crate) fn depends_on_code(status: StatusCode) -> bool {
    status.is_client_error() && !is_retried(status)
}

/// Whether the code asks for a retry. Other responses with the same status are mistakes of the caller.
fn is_retried_code(code: &str) -> bool {
    matches!(
        code,
        codes::KEY_IN_FLIGHT | codes::acp::IN_FLIGHT | codes::BODY_INCOMPLETE | codes::OVERTAKEN
    )
}

/// Whether a try with this code had no effect, although its status is that of a failure or a timeout.
fn is_code_without_effect(code: &str) -> bool {
    matches!(
        code,
        codes::BODY_TIMEOUT
            | codes::BUSY
            | codes::CAPACITY
            | codes::COMMIT_FAILED
            | codes::NOT_INSTALLED
            | codes::NOT_TRANSACTIONAL
            | codes::SHARE
            | codes::STORE_UNAVAILABLE
    )
}

/// Whether the code says that another try with the same key runs, or has run, and does not say what became of it.
fn is_code_of_open_outcome(code: &str) -> bool {
    matches!(
        code,
        codes::KEY_IN_FLIGHT
            | codes::acp::IN_FLIGHT
            | codes::OVERTAKEN
            | codes::OUTCOME_UNKNOWN
            | codes::RESPONSE_NOT_KEPT
    )
}

/// Whether the code reports a mistake in the server's program. A retry would get the same response.
fn is_permanent_code(code: &str) -> bool {
    matches!(
        code,
        codes::NOT_INSTALLED | codes::NOT_TRANSACTIONAL | codes::RENDER_FAILED
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::headers;

    #[test]
    fn only_temporary_failures_are_retried() {
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(is_retried(status) && !depends_on_code(status), "{status}");
        }
        for status in [400, 401, 403, 404, 409, 413, 422, 423] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(!is_retried(status) && depends_on_code(status), "{status}");
        }
        for status in [200, 201, 204, 302, 307] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(!is_retried(status) && !depends_on_code(status), "{status}");
        }
        let retried = codes::ALL.iter().filter(|code| is_retried_code(code));
        let retried: Vec<_> = retried.copied().collect();
        let expected = [
            codes::KEY_IN_FLIGHT,
            codes::BODY_INCOMPLETE,
            codes::OVERTAKEN,
        ];
        assert_eq!(retried, expected);
        assert!(is_retried_code(codes::acp::IN_FLIGHT));
        assert!(!is_retried_code(codes::acp::CONFLICT));
    }

    #[test]
    fn a_response_that_cannot_change_is_not_retried() {
        let is_temporary = |headers: &HeaderMap, status: StatusCode, body: &str| {
            Verdict::on(&Policy::default(), status, headers, body.as_bytes()).is_temporary
        };
        let none = HeaderMap::new();
        let mut replay = HeaderMap::new();
        replay.insert(
            headers::IDEMPOTENCY_REPLAYED,
            HeaderValue::from_static("true"),
        );
        for status in [
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::TOO_MANY_REQUESTS,
        ] {
            assert!(is_temporary(&none, status, "out of order"));
            assert!(!is_temporary(&replay, status, "out of order"));
        }
        for (code, expected) in [
            (codes::NOT_INSTALLED, false),
            (codes::NOT_TRANSACTIONAL, false),
            (codes::COMMIT_FAILED, true),
        ] {
            let body = format!(r#"{{"code":"{code}"}}"#);
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            assert_eq!(is_temporary(&none, status, &body), expected, "{code}");
        }
    }

    #[test]
    fn only_some_responses_leave_the_outcome_open() {
        let policy = Policy::default();
        let leaves_open = |status: u16, code: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            let body = format!(r#"{{"code":"{code}"}}"#);
            Verdict::on(&policy, status, &HeaderMap::new(), body.as_bytes()).leaves_open
        };
        for status in [408, 500, 502, 503, 504] {
            assert!(leaves_open(status, "of another service"), "{status}");
        }
        for status in [200, 204, 302, 400, 401, 404, 409, 422, 425, 429] {
            assert!(!leaves_open(status, "of another service"), "{status}");
        }
        let open = codes::ALL.iter().filter(|code| leaves_open(409, code));
        let open: Vec<_> = open.copied().collect();
        let expected = [
            codes::KEY_IN_FLIGHT,
            codes::OUTCOME_UNKNOWN,
            codes::RESPONSE_NOT_KEPT,
            codes::OVERTAKEN,
        ];
        assert_eq!(open, expected);
        assert!(leaves_open(409, codes::acp::IN_FLIGHT));
        assert!(!leaves_open(409, codes::acp::CONFLICT));
        assert!(leaves_open(504, codes::RUN_TIMEOUT));
        for code in [
            codes::STORE_UNAVAILABLE,
            codes::CAPACITY,
            codes::SHARE,
            codes::BUSY,
            codes::COMMIT_FAILED,
            codes::NOT_TRANSACTIONAL,
            codes::NOT_INSTALLED,
        ] {
            assert!(!leaves_open(503, code), "{code}");
        }
        assert!(!leaves_open(408, codes::BODY_TIMEOUT));
        let mut replay = HeaderMap::new();
        replay.insert(
            headers::IDEMPOTENCY_REPLAYED,
            HeaderValue::from_static("true"),
        );
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        assert!(!Verdict::on(&policy, status, &replay, b"out of order").leaves_open);
    }
}
