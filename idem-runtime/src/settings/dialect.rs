//! The wire format of one service: header names, statuses and key rules.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, StatusCode, header};

/// The wire format of one service: header names, statuses and key rules.
///
/// A dialect changes the form of requests and responses, but not the stored data. A record that was
/// written under one dialect is replayed under another dialect. So a service can change its dialect
/// while its clients retry. The exception is [`ignore_content_type`](Self::ignore_content_type).
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum_idem::Dialect;
///
/// let dialect = Dialect::default()
///     .max_key_len(128)
///     .key_rule(|key| !matches!(key, "123" | "test" | "random"))
///     .replay_header("Idempotent-Replay")
///     .documentation("https://example.com/docs/retries");
/// # let _ = dialect;
/// ```
///
/// # Questions that the IETF draft leaves open
///
/// The expired `draft-ietf-httpapi-idempotency-key-header-07` specifies the header and three
/// errors. [`Dialect::ietf`] is a profile of this draft. The draft does not decide the following
/// questions. The table shows the choice of this library, which is the same in every dialect:
///
/// | question | choice | to change it |
/// |---|---|---|
/// | a key that is malformed, empty, too long, or repeated | 400 `idempotency_key_invalid`. A parser of structured fields would ignore the field, and the request would run unprotected | [`key_syntax`](Self::key_syntax), [`key_rule`](Self::key_rule) |
/// | a key without quotes | the same key as with quotes | [`KeySyntax`] |
/// | parameters after a quoted key | ignored, and not part of the key | [`KeySyntax::Raw`] makes them part of the key |
/// | the length of a key | 1 to 255 bytes, without quotes | [`min_key_len`](Self::min_key_len), [`max_key_len`](Self::max_key_len) |
/// | a key on `GET`, `HEAD`, `OPTIONS` or `TRACE` | ignored | |
/// | the owner of a key (sections 2.2 and 5) | the `scope` of the endpoint; there is no default | `scope = …` |
/// | the parts of a request that a retry must repeat (section 2.4) | method, path, query, content type and body | `fingerprint = …`, [`ignore_content_type`](Self::ignore_content_type) |
/// | a reused key whose first request still runs | a mismatch, because waiting would not help | |
/// | the effect of a mismatch on the record | none: retries of the first request are replayed as before | |
/// | the responses that are the "result" of section 2.6 | 2xx, 3xx and 4xx, except 401, 403, 408, 425 and 429. After an exception and after 5xx, a retry runs | `record = …` |
/// | the headers of the result | all headers except those of the connection, the moment and the credentials, such as `Set-Cookie` | `IdempotencyBuilder::record_set_cookie` |
/// | a response that is too long to record | the response is sent once; a retry gets 409 `idempotency_response_not_kept` | `IdempotencyBuilder::max_recorded_body` |
/// | the mark of a replay | `Idempotency-Replayed: true`, and `Cache-Control: no-store` if the response has no `Cache-Control` | [`replay_header`](Self::replay_header), [`no_replay_header`](Self::no_replay_header) |
/// | when to retry while the first request runs | `Retry-After: 1` | `in_flight = wait("…")` |
/// | when a key expires (section 2.3) | 24 hours after its response was recorded; then it is a new key | `ttl = "…"` |
/// | a first request that never ends | it is ended after `max_run` (15 minutes by default), or its lease lapses when its process dies. Its outcome is unknown, and a retry runs again | `max_run = "…"`, `on_unknown = hold` |
/// | how a client distinguishes a 409 of this library from a 409 of the service | the `code` in a body of type `application/problem+json` | `IdempotencyBuilder::render_problem` |
/// | a store that fails or is full | 503 with `Retry-After`, and the handler does not run | `IdempotencyBuilder::on_store_error` |
/// | the data that is stored in the clear | neither key nor token: the id of a record is a hash of both | |
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
    echoes_key: bool,
    ignores_content_type: bool,
    problem_format: ProblemFormat,
}

/// The format of a refusal when the service has no `render_problem`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemFormat {
    /// RFC 9457.
    ProblemJson,
    /// The flat error of the Agentic Commerce Protocol.
    AgenticCommerce,
}

type KeyRule = dyn Fn(&str) -> bool + Send + Sync;

/// The syntax of the key in its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySyntax {
    /// `"abc"` and `abc` are the same key. A key without quotes must be visible ASCII without
    /// commas and quotes. A key with quotes must follow RFC 9651, section 3.3.3.
    #[default]
    Lenient,
    /// The key must be a quoted string, as in the IETF draft (section 2.1).
    StructuredString,
    /// The key is the complete header value, including quotes. The value must be valid UTF-8.
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
            echoes_key: false,
            ignores_content_type: false,
            problem_format: ProblemFormat::ProblemJson,
        }
    }
}

impl Dialect {
    pub(crate) const DEFAULT_KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

    /// The header that marks a response with reduced protection.
    pub(crate) const DEGRADED_HEADER: HeaderName = HeaderName::from_static("idempotency-degraded");

    /// The header that marks the replay of a response whose body was not recorded: `record_body = none`.
    pub(crate) const RECEIPT_HEADER: HeaderName = HeaderName::from_static("idempotency-receipt");

    /// Returns a profile of `draft-ietf-httpapi-idempotency-key-header-07`.
    ///
    /// Only quoted keys are accepted (section 2.1). A key that is used again with a different
    /// request gets 422, a missing key gets 400, and a key whose first request still runs gets 409
    /// (section 2.7). Section 2.7 also requires that a refusal links to documentation. The link
    /// leads to the draft until [`documentation`](Self::documentation) sets the page of the
    /// service.
    ///
    /// For the questions that the draft leaves open, the choices are [the same as in every
    /// dialect](Self#questions-that-the-ietf-draft-leaves-open).
    #[must_use]
    pub fn ietf() -> Self {
        Self::default()
            .key_syntax(KeySyntax::StructuredString)
            .mismatch(StatusCode::UNPROCESSABLE_ENTITY)
            .documentation(
                "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07",
            )
    }

    /// Returns a dialect with the names that clients of Stripe know: `Idempotent-Replayed: true`.
    /// Keys have up to 255 characters and are used unchanged, including quotes.
    ///
    /// The statuses are those of this library: a reused key gets 409, while Stripe sends 400. To
    /// send 400 as well, add `.mismatch(StatusCode::BAD_REQUEST)`.
    #[must_use]
    pub fn stripe() -> Self {
        Self::default()
            .key_syntax(KeySyntax::Raw)
            .replay_header("idempotent-replayed")
    }

    /// Returns the rules of the Agentic Commerce Protocol (RFC "Agentic Checkout", section 6).
    ///
    /// - A key has up to 255 characters and is used unchanged.
    /// - The `Content-Type` does not count, because only bodies are compared.
    /// - Each response to a request with a key contains the key ([`echo_key`](Self::echo_key)).
    /// - A replay carries `Idempotent-Replayed: true`.
    /// - A key that is used again with a different body gets 422 `idempotency_conflict`. A key whose first request
    ///   still runs gets 409 `idempotency_in_flight`. A missing key gets 400 `idempotency_key_required`. A refusal
    ///   is the flat error of the protocol: `{"type", "code", "message"}`. All other problems keep their codes.
    ///
    /// The rest is in the attribute of each endpoint. Bodies are compared as JSON, and a key belongs to an agent
    /// and a path:
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use axum_idem::{Dialect, Idempotency};
    ///
    /// // #[idempotent(required, fingerprint = json, scope = (agent.id, uri.path()))]
    /// // async fn create_session(agent: Agent, OriginalUri(uri): OriginalUri, …) …
    /// let idem = Idempotency::builder().dialect(Dialect::acp()).build();
    /// # drop(idem);
    /// ```
    ///
    /// The example `acp` is a merchant.
    #[must_use]
    pub fn acp() -> Self {
        Self {
            problem_format: ProblemFormat::AgenticCommerce,
            ..Self::stripe()
                .mismatch(StatusCode::UNPROCESSABLE_ENTITY)
                .echo_key()
                .ignore_content_type()
        }
    }

    /// Returns the rules of the Universal Commerce Protocol ("Message Signatures", replay protection).
    ///
    /// - A key has 22 to 255 characters, which is enough for 128 random bits, and is used unchanged.
    /// - The `Content-Type` does not count, because only the bytes of bodies are compared.
    /// - A key that is used again with a different body gets 409. A store that fails gives 503.
    ///
    /// The rest is in the attribute of each endpoint. A key belongs to a platform and an operation, and is kept for
    /// 24 hours at least: `#[idempotent(ttl = "48h", scope = (platform.id, uri.path()))]`. The example `ucp` is a
    /// merchant.
    #[must_use]
    pub fn ucp() -> Self {
        Self::default()
            .key_syntax(KeySyntax::Raw)
            .min_key_len(22)
            .ignore_content_type()
    }

    /// Sets the header that contains the key. `Idempotency-Key` by default.
    ///
    /// # Panics
    ///
    /// If `name` is not a valid header name.
    #[must_use]
    pub fn key_header(mut self, name: &str) -> Self {
        self.key_header = header_name(name);
        self
    }

    /// Sets the minimum length of a key in bytes, counted after unquoting. 1 by default. An empty
    /// key is always refused.
    #[must_use]
    pub fn min_key_len(mut self, bytes: usize) -> Self {
        self.key_len.0 = bytes;
        self
    }

    /// Sets the maximum length of a key in bytes, counted after unquoting. 255 by default.
    #[must_use]
    pub fn max_key_len(mut self, bytes: usize) -> Self {
        self.key_len.1 = bytes;
        self
    }

    /// Sets a rule for keys. If `allows` returns `false` for a key, the request is refused with
    /// 400.
    ///
    /// `allows` gets the key after unquoting, and runs before anything is read or stored.
    #[must_use]
    pub fn key_rule(mut self, allows: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.key_rule = Some(Arc::new(allows));
        self
    }

    /// Sets the syntax of the key in its header.
    #[must_use]
    pub fn key_syntax(mut self, syntax: KeySyntax) -> Self {
        self.key_syntax = syntax;
        self
    }

    /// Sets the header that marks a replay with the value `true`. `Idempotency-Replayed` by
    /// default.
    ///
    /// # Panics
    ///
    /// If `name` is not a valid header name.
    #[must_use]
    pub fn replay_header(mut self, name: &str) -> Self {
        self.replay_header = Some(header_name(name));
        self
    }

    /// Leaves the replay header out, and everything else that the first response did not have.
    ///
    /// This includes the `Cache-Control: no-store` of marked replays. A cache stores the response
    /// to a write only if the handler has set a lifetime. In that case, the first response and its replays contain
    /// this lifetime.
    #[must_use]
    pub fn no_replay_header(mut self) -> Self {
        self.replay_header = None;
        self
    }

    /// Sets the status for a key that was used with a different request. 409 by default.
    #[must_use]
    pub fn mismatch(mut self, status: StatusCode) -> Self {
        self.mismatch = status;
        self
    }

    /// Sets the status for a key whose first request still runs. 409 by default.
    #[must_use]
    pub fn in_flight(mut self, status: StatusCode) -> Self {
        self.in_flight = status;
        self
    }

    /// Sets the status for a request without a key at an endpoint with `required`. 400 by default.
    #[must_use]
    pub fn missing(mut self, status: StatusCode) -> Self {
        self.missing = status;
        self
    }

    /// Sets the page that documents the use of keys by the service (section 2.7 of the IETF draft).
    ///
    /// The `type` of every problem is then this address with the code of the problem as fragment.
    /// Each problem also carries `Link: <…>; rel="describedby"`.
    ///
    /// # Panics
    ///
    /// If `url` contains a character that a URL cannot contain: a space, a quote, an angle bracket,
    /// or a character that is not visible ASCII.
    #[must_use]
    pub fn documentation(mut self, url: impl Into<Arc<str>>) -> Self {
        let url = url.into();
        let belongs = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>');
        assert!(url.bytes().all(belongs), "`{url}` is not a valid URL");
        self.documentation = Some(url);
        self
    }

    /// Adds the key header of a request to its response, with the same value.
    ///
    /// The [`Idempotency`](crate::Idempotency) layer adds the header to every response to a request with a key that
    /// passes through the layer. This includes refusals and the responses of other layers. The response to a safe
    /// method gets no key. An endpoint with `runtime = …` and no layer adds nothing.
    #[must_use]
    pub fn echo_key(mut self) -> Self {
        self.echoes_key = true;
        self
    }

    /// Lets a retry have another `Content-Type` than the first request.
    ///
    /// This changes the fingerprints of requests. When a service adds this setting or removes it, a retry of a
    /// request from before the change is refused as a reused key, if that request had a `Content-Type`.
    #[must_use]
    pub fn ignore_content_type(mut self) -> Self {
        self.ignores_content_type = true;
        self
    }

    /// Returns the request headers that a page of another origin needs: the key header. Pass them to
    /// `CorsLayer::allow_headers`, with the headers that the service itself needs, such as `Content-Type`.
    ///
    /// Without them, the browser does not send a request with a key.
    #[must_use]
    pub fn request_headers(&self) -> Vec<HeaderName> {
        vec![self.key_header.clone()]
    }

    /// Returns the response headers that a page of another origin needs. Pass them to
    /// `CorsLayer::expose_headers`. Without them, the page cannot read when to retry, and cannot recognize a
    /// replay.
    ///
    /// The headers are the replay header, `Retry-After`, `Idempotency-Degraded`, `Idempotency-Receipt`, `Link` if the dialect has a
    /// [documentation](Self::documentation) page, and the key header if the dialect [echoes](Self::echo_key) it.
    #[must_use]
    pub fn response_headers(&self) -> Vec<HeaderName> {
        let replay = self.replay_header.clone();
        let link = self.documentation.as_ref().map(|_| header::LINK);
        let key = self.echoes_key.then(|| self.key_header.clone());
        let always = [
            header::RETRY_AFTER,
            Self::DEGRADED_HEADER,
            Self::RECEIPT_HEADER,
        ];
        replay
            .into_iter()
            .chain(always)
            .chain(link)
            .chain(key)
            .collect()
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

    pub(crate) fn echoes_key(&self) -> bool {
        self.echoes_key
    }

    pub(crate) fn counts_content_type(&self) -> bool {
        !self.ignores_content_type
    }

    pub(crate) fn problem_format(&self) -> ProblemFormat {
        self.problem_format
    }
}

fn header_name(name: &str) -> HeaderName {
    name.parse()
        .unwrap_or_else(|_| panic!("`{name}` is not a valid header name"))
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
            .field("echoes_key", &self.echoes_key)
            .field("ignores_content_type", &self.ignores_content_type)
            .field("problem_format", &self.problem_format)
            .finish()
    }
}

#[cfg(test)]
mod tests;
