//! How one service speaks on the wire: header names, statuses and key rules.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, StatusCode};

/// How one service speaks on the wire.
///
/// A dialect changes what requests and answers look like, never what is stored: a record that was
/// written under one dialect replays under another. So a service can change its dialect while its
/// clients retry.
///
/// ```
/// use idem_runtime::Dialect;
///
/// let dialect = Dialect::default()
///     .max_key_len(128)
///     .key_rule(|key| !matches!(key, "123" | "test" | "random"))
///     .replay_header("Idempotent-Replay")
///     .documentation("https://example.com/docs/retries");
/// # let _ = dialect;
/// ```
///
/// # What the IETF draft leaves open
///
/// `draft-ietf-httpapi-idempotency-key-header-07` (expired; [`Dialect::ietf`] is a profile of it)
/// says what the header looks like and which three errors there are. It is silent on the rest, and
/// this is what we chose, in every dialect:
///
/// | question | choice | to change it |
/// |---|---|---|
/// | a key that is malformed, empty, too long, or there twice | 400 `idempotency_key_invalid`. A parser of structured fields would ignore the field, and the request would run unprotected | [`key_syntax`](Self::key_syntax), [`key_rule`](Self::key_rule) |
/// | a key without quotes | the same key as with quotes | [`KeySyntax`] |
/// | parameters behind a quoted key | they mean nothing, and are no part of the key | [`KeySyntax::Raw`] makes them part of it |
/// | how long a key may be | 1 to 255 bytes, without its quotes | [`min_key_len`](Self::min_key_len), [`max_key_len`](Self::max_key_len) |
/// | a key on `GET`, `HEAD`, `OPTIONS` or `TRACE` | it is ignored | |
/// | whose key it is (sections 2.2 and 5) | what the endpoint's `scope` says; there is no default | `scope = …` |
/// | what a retry has to repeat (section 2.4) | method, path, query, content type and body | `fingerprint = …` |
/// | a reused key whose first request still runs | a mismatch, for waiting would not help | |
/// | what a mismatch does to the record | nothing: the first request's retries replay as before | |
/// | which answers are the "result" of section 2.6 | 2xx, 3xx and 4xx, but not 401, 403, 408, 425, 429 or 5xx, after which a retry runs | `record = …` |
/// | which headers are part of it | all but those of the connection, the moment and the credentials, such as `Set-Cookie` | `IdempotencyBuilder::record_set_cookie` |
/// | an answer too long to keep | it is sent once; its retry gets 409 `idempotency_response_not_kept` | `IdempotencyBuilder::max_recorded_body` |
/// | how a replay is marked | `Idempotency-Replayed: true`, and `Cache-Control: no-store` where there was none | [`replay_header`](Self::replay_header), [`no_replay_header`](Self::no_replay_header) |
/// | when to come back while the first request runs | `Retry-After: 1` | `in_flight = wait("…")` |
/// | when a key expires (section 2.3) | 24 hours after its answer was kept, to the second; then it is a new key | `ttl = "…"` |
/// | a first request that never ended | its key is free once its lease lapses | `on_unknown = hold` |
/// | telling our 409 from the service's own | `code`, in a body of `application/problem+json` | `IdempotencyBuilder::render_problem` |
/// | a store that does not answer, or is full | 503 with `Retry-After`, and nothing runs | `IdempotencyBuilder::on_store_error` |
/// | what is stored in the clear | neither key nor token: a record's name is a hash over both | |
#[derive(Clone)]
pub struct Dialect {
    key_header: HeaderName,
    key_len: (usize, usize),
    key_rule: Option<Arc<KeyRule>>,
    key_syntax: KeySyntax,
    replay_header: Option<HeaderName>,
    mismatch: StatusCode,
    in_flight: StatusCode,
    missing: StatusCode,
    documentation: Option<Arc<str>>,
}

type KeyRule = dyn Fn(&str) -> bool + Send + Sync;

/// How the key stands in its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySyntax {
    /// `"abc"` and `abc` are the same key. An unquoted key is visible ASCII without commas and
    /// quotes; a quoted one follows RFC 9651, section 3.3.3.
    #[default]
    Lenient,
    /// Only a quoted string, as the IETF draft asks (section 2.1).
    StructuredString,
    /// Every byte of the header is the key, its quotes too, as long as it is UTF-8.
    Raw,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            key_header: Self::DEFAULT_KEY_HEADER,
            key_len: (1, 255),
            key_rule: None,
            key_syntax: KeySyntax::Lenient,
            replay_header: Some(HeaderName::from_static("idempotency-replayed")),
            mismatch: StatusCode::CONFLICT,
            in_flight: StatusCode::CONFLICT,
            missing: StatusCode::BAD_REQUEST,
            documentation: None,
        }
    }
}

impl Dialect {
    pub(crate) const DEFAULT_KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

    /// A profile of `draft-ietf-httpapi-idempotency-key-header-07`.
    ///
    /// Only quoted keys (section 2.1), 422 for a key that is used again with another request, 400
    /// for one that is missing, and 409 while the first request runs (section 2.7). Section 2.7 also
    /// asks that a refusal leads to documentation: it leads to the draft until
    /// [`documentation`](Self::documentation) names the service's own page.
    ///
    /// What the draft leaves open is [as in every dialect](Self#what-the-ietf-draft-leaves-open).
    #[must_use]
    pub fn ietf() -> Self {
        Self::default()
            .key_syntax(KeySyntax::StructuredString)
            .mismatch(StatusCode::UNPROCESSABLE_ENTITY)
            .documentation(
                "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07",
            )
    }

    /// The names that clients of Stripe know: `Idempotent-Replayed: true`, and keys of up to 255
    /// characters that are taken as they stand, quotes and all.
    ///
    /// The statuses are ours: 409 for a reused key, where Stripe itself sends 400. A service that
    /// has to match that too adds `.mismatch(StatusCode::BAD_REQUEST)`.
    #[must_use]
    pub fn stripe() -> Self {
        Self::default()
            .key_syntax(KeySyntax::Raw)
            .replay_header("idempotent-replayed")
    }

    /// The header that carries the key. `Idempotency-Key` by default.
    ///
    /// # Panics
    ///
    /// When `name` is not a header name.
    #[must_use]
    pub fn key_header(mut self, name: &str) -> Self {
        self.key_header = header_name(name);
        self
    }

    /// The fewest bytes that a key may have, counted after unquoting. 1 by default; an empty key is
    /// always refused.
    #[must_use]
    pub fn min_key_len(mut self, bytes: usize) -> Self {
        self.key_len.0 = bytes;
        self
    }

    /// The most bytes that a key may have, counted after unquoting. 255 by default.
    #[must_use]
    pub fn max_key_len(mut self, bytes: usize) -> Self {
        self.key_len.1 = bytes;
        self
    }

    /// A rule of the service's own: a key for which it says `false` is refused with 400.
    ///
    /// It sees the key after unquoting, and runs before anything is read or stored.
    #[must_use]
    pub fn key_rule(mut self, allows: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.key_rule = Some(Arc::new(allows));
        self
    }

    /// How the key stands in its header.
    #[must_use]
    pub fn key_syntax(mut self, syntax: KeySyntax) -> Self {
        self.key_syntax = syntax;
        self
    }

    /// The header that marks a replay, with the value `true`. `Idempotency-Replayed` by default.
    ///
    /// # Panics
    ///
    /// When `name` is not a header name.
    #[must_use]
    pub fn replay_header(mut self, name: &str) -> Self {
        self.replay_header = Some(header_name(name));
        self
    }

    /// Replays carry no mark, and nothing else that the first answer did not.
    ///
    /// That includes the `Cache-Control: no-store` of marked replays. A cache keeps the answer to a
    /// write only where the handler said for how long, and then both answers say so.
    #[must_use]
    pub fn no_replay_header(mut self) -> Self {
        self.replay_header = None;
        self
    }

    /// The status for a key that was used with another request. 409 by default.
    #[must_use]
    pub fn mismatch(mut self, status: StatusCode) -> Self {
        self.mismatch = status;
        self
    }

    /// The status for a key whose first request still runs. 409 by default.
    #[must_use]
    pub fn in_flight(mut self, status: StatusCode) -> Self {
        self.in_flight = status;
        self
    }

    /// The status for a request without a key where the endpoint says `required`. 400 by default.
    #[must_use]
    pub fn missing(mut self, status: StatusCode) -> Self {
        self.missing = status;
        self
    }

    /// The page on which the service explains its use of keys (section 2.7 of the IETF draft).
    ///
    /// The `type` of every problem then is this address with the problem's code as fragment, and
    /// each carries `Link: <…>; rel="describedby"`.
    ///
    /// # Panics
    ///
    /// When `url` holds what no URL does: a space, a quote, an angle bracket, or anything that is
    /// not visible ASCII.
    #[must_use]
    pub fn documentation(mut self, url: impl Into<Arc<str>>) -> Self {
        let url = url.into();
        let belongs = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>');
        assert!(url.bytes().all(belongs), "`{url}` is not a URL");
        self.documentation = Some(url);
        self
    }

    pub(crate) fn has_default_key_header(&self) -> bool {
        self.key_header == Self::DEFAULT_KEY_HEADER
    }

    pub(crate) fn key_header_name(&self) -> &HeaderName {
        &self.key_header
    }

    pub(crate) fn min_key_bytes(&self) -> usize {
        self.key_len.0
    }

    pub(crate) fn max_key_bytes(&self) -> usize {
        self.key_len.1
    }

    pub(crate) fn rule_allows(&self, key: &str) -> bool {
        self.key_rule.as_ref().is_none_or(|allows| allows(key))
    }

    pub(crate) fn syntax(&self) -> KeySyntax {
        self.key_syntax
    }

    pub(crate) fn replay_header_name(&self) -> Option<&HeaderName> {
        self.replay_header.as_ref()
    }

    pub(crate) fn mismatch_status(&self) -> StatusCode {
        self.mismatch
    }

    pub(crate) fn in_flight_status(&self) -> StatusCode {
        self.in_flight
    }

    pub(crate) fn missing_status(&self) -> StatusCode {
        self.missing
    }

    pub(crate) fn documentation_url(&self) -> Option<&str> {
        self.documentation.as_deref()
    }
}

fn header_name(name: &str) -> HeaderName {
    name.parse()
        .unwrap_or_else(|_| panic!("`{name}` is not a header name"))
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialect")
            .field("key_header", &self.key_header)
            .field("key_len", &self.key_len)
            .field("key_rule", &self.key_rule.is_some())
            .field("key_syntax", &self.key_syntax)
            .field("replay_header", &self.replay_header)
            .field("mismatch", &self.mismatch)
            .field("in_flight", &self.in_flight)
            .field("missing", &self.missing)
            .field("documentation", &self.documentation)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "is not a URL")]
    fn documentation_cannot_break_out_of_its_header() {
        let _ = Dialect::default().documentation("https://example.com/>; rel=\"next\", <x");
    }

    #[test]
    fn a_profile_is_what_its_name_says() {
        let ietf = Dialect::ietf();
        assert_eq!(ietf.syntax(), KeySyntax::StructuredString);
        assert_eq!(ietf.mismatch_status(), StatusCode::UNPROCESSABLE_ENTITY);
        let page = ietf.documentation_url().expect("the draft");
        assert!(page.contains("draft-ietf-httpapi-idempotency-key-header-07"));

        let stripe = Dialect::stripe();
        assert_eq!(stripe.syntax(), KeySyntax::Raw);
        assert_eq!(
            stripe.replay_header_name().map(HeaderName::as_str),
            Some("idempotent-replayed")
        );
        assert_eq!(stripe.documentation_url(), None);
    }

    #[test]
    fn a_service_names_its_own_header() {
        let dialect = Dialect::default();
        assert_eq!(dialect.key_header_name(), "idempotency-key");
        assert!(dialect.has_default_key_header());
        let dialect = dialect.key_header("X-Request-Id");
        assert_eq!(dialect.key_header_name(), "x-request-id");
        assert!(!dialect.has_default_key_header());
        assert_eq!(dialect.no_replay_header().replay_header_name(), None);
    }
}
