//! The settings of a client: how long it waits, and the names of the headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::headers;

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
