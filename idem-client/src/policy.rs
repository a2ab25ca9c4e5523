//! When the client retries, and how long it waits.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::{Problem, codes, headers};

/// When the client retries, how long it waits, and the names of the headers.
///
/// ```
/// use std::time::Duration;
/// use idem_client::Policy;
///
/// let policy = Policy::default()
///     .waits(Duration::from_millis(200), Duration::from_secs(10))
///     .deadline(Duration::from_secs(60));
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) first_wait: Duration,
    pub(crate) longest_wait: Duration,
    pub(crate) deadline: Duration,
    pub(crate) try_timeout: Duration,
    pub(crate) key_header: HeaderName,
    pub(crate) replay_header: HeaderName,
    pub(crate) quotes_keys: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            deadline: Duration::from_secs(120),
            try_timeout: Duration::from_secs(30),
            key_header: headers::IDEMPOTENCY_KEY,
            replay_header: headers::IDEMPOTENCY_REPLAYED,
            quotes_keys: false,
        }
    }
}

impl Policy {
    /// Sets the limit of the wait before the second try, and the limit of every wait. 500 milliseconds and
    /// 30 seconds by default.
    ///
    /// The limit doubles with each try. Each wait is a random time below its limit, so that clients that failed
    /// together do not retry together. The time in `Retry-After` is added.
    #[must_use]
    pub fn waits(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_wait, self.longest_wait) = (first, longest);
        self
    }

    /// Sets how long an operation may take with all its tries and waits, once it has its key. 2 minutes by default.
    ///
    /// A wait that would end after the deadline does not begin. The `ttl` of the server must be longer than this time,
    /// and longer than the time for which the caller itself retries.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how long one try may take. 30 seconds by default.
    ///
    /// The time includes the body of a response to a write, which is read into memory as a whole. The body of a
    /// response to a read is passed on while it arrives, so its time is not limited.
    #[must_use]
    pub fn try_timeout(mut self, timeout: Duration) -> Self {
        self.try_timeout = timeout;
        self
    }

    /// Sets the header that contains the key. `Idempotency-Key` by default.
    #[must_use]
    pub fn key_header(mut self, name: HeaderName) -> Self {
        self.key_header = name;
        self
    }

    /// Sets the header by which the server marks a replay. `Idempotency-Replayed` by default.
    #[must_use]
    pub fn replay_header(mut self, name: HeaderName) -> Self {
        self.replay_header = name;
        self
    }

    /// Sends generated keys in quotes, as the IETF draft demands. Servers with `Dialect::ietf()` accept no
    /// other key.
    #[must_use]
    pub fn quote_keys(mut self) -> Self {
        self.quotes_keys = true;
        self
    }

    /// The methods that get a key.
    pub(crate) fn needs_key(method: &Method) -> bool {
        matches!(
            *method,
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE
        )
    }

    /// Whether a retry can get another response. For a write, `body` is the whole body. For a read it is empty, unless
    /// the status [asks for it](depends_on_code).
    pub(crate) fn is_temporary(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> bool {
        // The server has recorded a response that it replays.
        if self.is_replay(headers) {
            return false;
        }
        if depends_on_code(status) {
            return Problem::code_in(body).is_some_and(|code| is_retried_code(&code));
        }
        let is_permanent = || Problem::code_in(body).is_some_and(|code| is_permanent_code(&code));
        is_retried(status) && !(status == StatusCode::INTERNAL_SERVER_ERROR && is_permanent())
    }

    /// Whether the operation may have happened when a try gets this response, and the response does not report the
    /// outcome. `body` is the whole body of a response to a write.
    pub(crate) fn leaves_outcome_open(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> bool {
        if self.reports_outcome(status, headers) {
            return false;
        }
        let code = Problem::code_in(body);
        let code = code.as_deref().unwrap_or_default();
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            !is_code_without_effect(code)
        } else {
            is_code_of_open_outcome(code)
        }
    }

    /// Whether the response is the outcome of the operation: its success, or its recorded response. Any other response
    /// may come from a layer or an extractor, which runs before the server looks at the key.
    pub(crate) fn reports_outcome(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        status.is_success() || self.is_replay(headers)
    }

    pub(crate) fn is_replay(&self, headers: &HeaderMap) -> bool {
        headers::is_true(headers, &self.replay_header)
    }

    /// The value of the key header for a generated key.
    pub(crate) fn key_value(&self, key: &str) -> Option<HeaderValue> {
        let quoted = self
            .quotes_keys
            .then(|| format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\"")));
        HeaderValue::from_str(quoted.as_deref().unwrap_or(key)).ok()
    }

    /// The longest wait before the next try, after this number of tries.
    pub(crate) fn wait_limit(&self, tries: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
        self.first_wait
            .saturating_mul(doubled)
            .min(self.longest_wait)
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
    use super::*;

    #[test]
    fn the_limits_of_the_waits_double_up_to_the_longest() {
        let limits = |policy: Policy, tries| -> Vec<u128> {
            let limit = |tries| policy.wait_limit(tries).as_millis();
            (1..=tries).map(limit).collect()
        };
        let doubling = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        assert_eq!(limits(Policy::default(), 8), doubling);
        let policy = Policy::default().waits(Duration::MAX, Duration::MAX);
        assert_eq!(policy.wait_limit(u32::MAX), Duration::MAX);
    }

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
        let policy = Policy::default();
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
            assert!(policy.is_temporary(status, &none, b"out of order"));
            assert!(!policy.is_temporary(status, &replay, b"out of order"));
        }
        for (code, is_temporary) in [
            (codes::NOT_INSTALLED, false),
            (codes::NOT_TRANSACTIONAL, false),
            (codes::COMMIT_FAILED, true),
        ] {
            let body = format!(r#"{{"code":"{code}"}}"#);
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let is = policy.is_temporary(status, &none, body.as_bytes());
            assert_eq!(is, is_temporary, "{code}");
        }
    }

    #[test]
    fn only_some_responses_leave_the_outcome_open() {
        let policy = Policy::default();
        let leaves_open = |status: u16, code: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            let body = format!(r#"{{"code":"{code}"}}"#);
            policy.leaves_outcome_open(status, &HeaderMap::new(), body.as_bytes())
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
        assert!(!policy.leaves_outcome_open(status, &replay, b"out of order"));
    }

    #[test]
    fn a_quoted_key_is_a_structured_string() {
        let quoted = Policy::default().quote_keys();
        let value = quoted.key_value("a\"b\\c").expect("a value");
        assert_eq!(value, "\"a\\\"b\\\\c\"");
        assert_eq!(Policy::default().key_value("a").expect("a value"), "a");
        assert_eq!(Policy::default().key_value("a\nb"), None);
    }

    #[test]
    fn writes_get_a_key_and_reads_do_not() {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(Policy::needs_key(&method));
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert!(!Policy::needs_key(&method));
        }
    }
}
