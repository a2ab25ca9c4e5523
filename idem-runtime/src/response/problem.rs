//! Renders refusals as `application/problem+json` (RFC 9457). Each refusal has a stable code.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::request::body::BodyError;
use crate::request::record_id::RecordId;
use crate::request::scope::ScopeMissing;
use crate::settings::dialect::{Dialect, ProblemFormat};

/// The reason why a request was refused, in the form that its client gets.
///
/// A problem is rendered as `application/problem+json` with `type`, `title`, `status`, `detail` and
/// `code`, unless the service has set its own `render_problem`. No part of a problem contains a key
/// or a token. A problem about a record also has `instance`, the URN of the record
/// ([`RecordId::urn`]), by which an operator finds the record. Somebody who guesses a scope, such as a number or a
/// password, can confirm the guess from a URN, and the URNs of one caller begin with the same digits. Treat a URN as
/// personal data.
///
/// | code | status | when |
/// |---|---|---|
/// | `idempotency_key_missing` | 400, or the status of the dialect | the endpoint has `required`, and the request has no key |
/// | `idempotency_key_invalid` | 400 | the key is empty, malformed, too short, too long, sent twice, or refused by the [`key_rule`](Dialect::key_rule) |
/// | `idempotency_key_reused` | 409, or the status of the dialect | the key was used with a different request |
/// | `idempotency_key_in_flight` | 409, or the status of the dialect | the first request with the key still runs |
/// | `idempotency_scope_missing` | 401 for `token`, 400 for `header(…)` | the request has no owner for its key: the header of the scope is missing, empty or repeated |
/// | `idempotency_outcome_unknown` | 409, or 503 for the first request | the outcome of the first request is unknown, and the endpoint has `on_unknown = hold`; or the outcome of the commit of this request is unknown |
/// | `idempotency_run_timeout` | 504 | the handler or its body extractor ran longer than `max_run` allows |
/// | `idempotency_busy` | 503 | as many attempts as `max_running` allows are running |
/// | `idempotency_response_not_kept` | 409 | the handler has run, but its response was not recorded: its body was too long, endless, took longer than `response_timeout`, failed, had trailers or differed from its `Content-Length`, or 16 MiB of records already waited for the store |
/// | `idempotency_store_unavailable` | 503 | the store failed or did not reply in time |
/// | `idempotency_capacity` | 503 | the store is full |
/// | `idempotency_share` | 503 | the scope holds its share of the store ([`max_share`](crate::store::MemoryStoreBuilder::max_share)) |
/// | `idempotency_body_too_large` | 413 | the body is longer than `max_request_body` or than the limit of axum (`DefaultBodyLimit`) |
/// | `idempotency_body_incomplete` | 400 | the body ended early |
/// | `idempotency_body_timeout` | 408 | the body stalled |
/// | `idempotency_overtaken` | 409 | another attempt has taken over, and the transaction of this attempt was rolled back ([`CommitError`](crate::CommitError)) |
/// | `idempotency_commit_failed` | 500, or 503 when a retry can succeed | the transaction of the handler could not be committed |
/// | `idempotency_not_transactional` | 500 | the endpoint is `transactional`, and the store or the database of the handler cannot record a response in a transaction |
/// | `idempotency_not_installed` | 500 | no [`Idempotency`](crate::Idempotency) covers the endpoint, or its layer did not see the key |
/// | `idempotency_render_failed` | 500 | the `render_problem` function of the service panicked |
#[derive(Clone, Debug)]
pub struct Problem {
    pub(super) kind: Kind,
    status: StatusCode,
    pub(super) detail: Cow<'static, str>,
    type_uri: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// The record that the request is about, once it is known.
    pub(super) record_id: Option<RecordId>,
    /// The documentation page of the service, for the `Link` header.
    documentation: Option<Box<str>>,
    format: ProblemFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    KeyMissing,
    KeyInvalid,
    KeyReused,
    KeyInFlight,
    TokenMissing,
    ScopeHeaderMissing,
    OutcomeUnknown,
    RunTimeout,
    Busy,
    ResponseNotKept,
    StoreUnavailable,
    Capacity,
    Share,
    BodyTooLarge,
    BodyIncomplete,
    BodyTimeout,
    Overtaken,
    CommitFailed,
    NotTransactional,
    NotInstalled,
    RenderFailed,
}

impl Kind {
    /// Returns the code, the default status and the title.
    #[expect(clippy::too_many_lines, reason = "a table")]
    const fn facts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::KeyMissing => (
                "idempotency_key_missing",
                StatusCode::BAD_REQUEST,
                "An idempotency key is required",
            ),
            Self::KeyInvalid => (
                "idempotency_key_invalid",
                StatusCode::BAD_REQUEST,
                "The idempotency key is not valid",
            ),
            Self::KeyReused => (
                "idempotency_key_reused",
                StatusCode::CONFLICT,
                "The idempotency key was used with a different request",
            ),
            Self::KeyInFlight => (
                "idempotency_key_in_flight",
                StatusCode::CONFLICT,
                "The first request with this idempotency key is still running",
            ),
            Self::TokenMissing => (
                "idempotency_scope_missing",
                StatusCode::UNAUTHORIZED,
                "The request does not identify the owner of its idempotency key",
            ),
            Self::ScopeHeaderMissing => (
                "idempotency_scope_missing",
                StatusCode::BAD_REQUEST,
                "The request does not identify the owner of its idempotency key",
            ),
            Self::OutcomeUnknown => (
                "idempotency_outcome_unknown",
                StatusCode::CONFLICT,
                "The outcome of the first request is unknown",
            ),
            Self::RunTimeout => (
                "idempotency_run_timeout",
                StatusCode::GATEWAY_TIMEOUT,
                "The request ran for too long and was ended",
            ),
            Self::Busy => (
                "idempotency_busy",
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests with an idempotency key are running at the moment",
            ),
            Self::ResponseNotKept => (
                "idempotency_response_not_kept",
                StatusCode::CONFLICT,
                "The request was executed, but its response was not recorded",
            ),
            Self::StoreUnavailable => (
                "idempotency_store_unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "Idempotency keys are temporarily unavailable",
            ),
            Self::Capacity => (
                "idempotency_capacity",
                StatusCode::SERVICE_UNAVAILABLE,
                "The store of idempotency keys is temporarily full",
            ),
            Self::Share => (
                "idempotency_share",
                StatusCode::SERVICE_UNAVAILABLE,
                "No more idempotency keys of this caller can be taken at the moment",
            ),
            Self::BodyTooLarge => (
                "idempotency_body_too_large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request body is too large",
            ),
            Self::BodyIncomplete => (
                "idempotency_body_incomplete",
                StatusCode::BAD_REQUEST,
                "The request body is incomplete",
            ),
            Self::BodyTimeout => (
                "idempotency_body_timeout",
                StatusCode::REQUEST_TIMEOUT,
                "The request body did not arrive in time",
            ),
            Self::Overtaken => (
                "idempotency_overtaken",
                StatusCode::CONFLICT,
                "Another request with this idempotency key has taken over",
            ),
            Self::CommitFailed => (
                "idempotency_commit_failed",
                StatusCode::INTERNAL_SERVER_ERROR,
                "The operation could not be committed",
            ),
            Self::NotTransactional => (
                "idempotency_not_transactional",
                StatusCode::INTERNAL_SERVER_ERROR,
                "The service is not configured for transactions with idempotency keys",
            ),
            Self::NotInstalled => (
                "idempotency_not_installed",
                StatusCode::INTERNAL_SERVER_ERROR,
                "The service is not configured for idempotency keys",
            ),
            Self::RenderFailed => (
                "idempotency_render_failed",
                StatusCode::INTERNAL_SERVER_ERROR,
                "The request was refused",
            ),
        }
    }
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let (code, status, _) = kind.facts();
        Self {
            kind,
            status,
            detail: detail.into(),
            type_uri: format!("urn:axum-idem:problem:{code}").into(),
            retry_after: None,
            record_id: None,
            documentation: None,
            format: ProblemFormat::ProblemJson,
        }
    }

    /// Returns the code by which a client distinguishes problems. A code never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind.facts().0
    }

    /// Returns the HTTP status, which depends on the dialect of the service.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns a short summary, which is the same for every problem with this code.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.kind.facts().2
    }

    /// Returns an explanation of what is wrong with this request and what its client should do.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the URI of this kind of problem. If the dialect names a documentation page, the URI
    /// points into that page.
    #[must_use]
    pub fn type_uri(&self) -> &str {
        &self.type_uri
    }

    /// Returns how long the client should wait before it retries.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The record that the request is about. `None` when the request was refused before its record was
    /// known. The default rendering has its [URN](RecordId::urn) as `instance`.
    #[must_use]
    pub fn record_id(&self) -> Option<RecordId> {
        self.record_id
    }

    pub(crate) fn key_missing() -> Self {
        Self::new(
            Kind::KeyMissing,
            "send an idempotency key; create it before the first try, and send the same key with every retry",
        )
    }

    pub(crate) fn key_invalid(reason: &'static str) -> Self {
        Self::new(Kind::KeyInvalid, reason)
    }

    pub(crate) fn key_reused() -> Self {
        Self::new(
            Kind::KeyReused,
            "method, path, query, content type or body differ from the first request; \
             use a new key for a new operation",
        )
    }

    /// The wait is short, because a handler usually ends long before its lease.
    pub(crate) fn key_in_flight() -> Self {
        Self::new(
            Kind::KeyInFlight,
            "retry the same request after the time in `Retry-After`",
        )
        .retry_after_seconds(1)
    }

    pub(crate) fn scope_missing(missing: ScopeMissing) -> Self {
        match missing {
            ScopeMissing::Token => Self::new(
                Kind::TokenMissing,
                "a request with an idempotency key needs exactly one `Authorization` header",
            ),
            ScopeMissing::Header => Self::new(
                Kind::ScopeHeaderMissing,
                "a request with an idempotency key needs exactly one header that identifies its owner",
            ),
        }
    }

    pub(crate) fn outcome_unknown() -> Self {
        Self::new(
            Kind::OutcomeUnknown,
            "the first request was interrupted; find out what it did before you send it with a new key",
        )
    }

    /// The handler ran for too long.
    pub(crate) fn run_timeout() -> Self {
        Self::new(
            Kind::RunTimeout,
            "the request was ended before it was finished; send it again with the same key to learn what it did",
        )
    }

    /// The body extractor ran for too long.
    pub(crate) fn extraction_timeout() -> Self {
        Self::new(
            Kind::RunTimeout,
            "the request body could not be read in time, and the request was not carried out; send it \
             again with the same key",
        )
    }

    pub(crate) fn busy() -> Self {
        Self::new(
            Kind::Busy,
            "the request was not carried out; send it again with the same key",
        )
        .retry_after_seconds(1)
    }

    pub(crate) fn response_not_kept() -> Self {
        Self::new(
            Kind::ResponseNotKept,
            "the first request was executed and its response was sent once; read the result from \
             the resource itself",
        )
    }

    pub(crate) fn store_unavailable() -> Self {
        Self::new(
            Kind::StoreUnavailable,
            "the request was not executed; retry it with the same key",
        )
        .retry_after_seconds(1)
    }

    /// The state of a key could not be read for a caller that asked for it.
    pub(crate) fn status_unavailable() -> Self {
        Self::new(
            Kind::StoreUnavailable,
            "the state of the idempotency key cannot be read at the moment; ask again",
        )
        .retry_after_seconds(1)
    }

    pub(crate) fn capacity() -> Self {
        Self::new(
            Kind::Capacity,
            "the request was not executed; retry it with the same key",
        )
        .retry_after_seconds(5)
    }

    pub(crate) fn share() -> Self {
        Self::new(
            Kind::Share,
            "the request was not carried out; send it again with the same key once older keys have \
             expired",
        )
        .retry_after_seconds(5)
    }

    pub(crate) fn body_too_large() -> Self {
        Self::new(
            Kind::BodyTooLarge,
            "the request was not executed; send a shorter body",
        )
    }

    pub(crate) fn body_incomplete() -> Self {
        Self::new(
            Kind::BodyIncomplete,
            "the body ended early, so the request was not executed; retry it with the same key",
        )
    }

    pub(crate) fn body_timeout() -> Self {
        Self::new(
            Kind::BodyTimeout,
            "the body stalled, so the request was not executed; retry it with the same key",
        )
    }

    pub(crate) fn not_installed() -> Self {
        Self::new(
            Kind::NotInstalled,
            "the request was not executed, because the service would ignore its idempotency key",
        )
    }

    pub(crate) fn render_failed() -> Self {
        Self::new(
            Kind::RenderFailed,
            "the service failed to render the reason",
        )
    }

    pub(super) fn retry_after_seconds(mut self, seconds: u64) -> Self {
        self.retry_after = Some(Duration::from_secs(seconds));
        self
    }

    /// Names the record that the request is about.
    pub(crate) fn about(mut self, record_id: Option<RecordId>) -> Self {
        self.record_id = record_id;
        self
    }

    /// Gives the problem the status of its response, which a handler or a layer may have changed.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Applies the dialect of the service: some statuses, the documentation page, and the format.
    pub(crate) fn in_dialect(mut self, dialect: &Dialect) -> Self {
        self.format = dialect.problem_format();
        match self.kind {
            // A handler or a layer has changed the status.
            _ if self.status != self.kind.facts().1 => {}
            Kind::KeyMissing => self.status = dialect.missing_status(),
            Kind::KeyReused => self.status = dialect.mismatch_status(),
            Kind::KeyInFlight => self.status = dialect.in_flight_status(),
            _ => {}
        }
        if let Some(url) = dialect.documentation_url() {
            let page = url.split_once('#').map_or(url, |(page, _)| page);
            self.type_uri = format!("{page}#{}", self.code()).into();
            self.documentation = Some(url.into());
        }
        self
    }

    /// Renders the problem in the format of the dialect.
    pub(crate) fn render(&self) -> Response {
        let (content_type, body) = match self.format {
            ProblemFormat::ProblemJson => ("application/problem+json", self.problem_json()),
            ProblemFormat::AgenticCommerce => ("application/json", self.agentic_commerce()),
        };
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (self.status, headers, body).into_response()
    }

    fn problem_json(&self) -> String {
        let instance = self.record_id.map(|id| id.urn());
        let mut body = object([
            ("type", Some(self.type_uri())),
            ("title", Some(self.title())),
            ("detail", Some(self.detail())),
            ("code", Some(self.code())),
            ("instance", instance.as_deref()),
        ]);
        // A string takes everything.
        let _ = write!(body, ",\"status\":{}}}", self.status.as_u16());
        body
    }

    /// The flat error of the Agentic Commerce Protocol, with the three codes of its section 6.4.
    fn agentic_commerce(&self) -> String {
        let kind = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
            status if status.is_server_error() => "processing_error",
            _ => "invalid_request",
        };
        let mut body = object([
            ("type", Some(kind)),
            ("code", Some(self.rendered_code())),
            ("message", Some(self.detail())),
        ]);
        body.push('}');
        body
    }

    /// Returns the code in the body of the default rendering, which a format may rename.
    pub(crate) fn rendered_code(&self) -> &'static str {
        match (self.format, self.kind) {
            (ProblemFormat::AgenticCommerce, Kind::KeyMissing) => "idempotency_key_required",
            (ProblemFormat::AgenticCommerce, Kind::KeyReused) => "idempotency_conflict",
            (ProblemFormat::AgenticCommerce, Kind::KeyInFlight) => "idempotency_in_flight",
            _ => self.code(),
        }
    }

    /// Adds the headers that belong to the problem, if the rendering has left them out.
    pub(crate) fn complete(&self, response: &mut Response) {
        let mut add = |name: HeaderName, value: HeaderValue| {
            response.headers_mut().entry(name).or_insert(value);
        };
        if let Some(wait) = self.retry_after {
            add(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        if self.kind == Kind::TokenMissing {
            add(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let link = self
            .documentation
            .as_ref()
            .map(|url| format!("<{url}>; rel=\"describedby\""));
        if let Some(Ok(link)) = link.map(HeaderValue::try_from) {
            add(header::LINK, link);
        }
    }
}

/// Writes the members that exist, without the closing brace. In one piece: a tree of values takes an
/// allocation for each name and value.
fn object<const N: usize>(members: [(&str, Option<&str>); N]) -> String {
    let mut json = String::with_capacity(512);
    for (name, text) in members {
        if let Some(text) = text {
            json.push(if json.is_empty() { '{' } else { ',' });
            push_json(&mut json, name);
            json.push(':');
            push_json(&mut json, text);
        }
    }
    json
}

/// Appends a text as a JSON string.
fn push_json(json: &mut String, text: &str) {
    let needs_escape = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
    if text.bytes().any(needs_escape) {
        json.push_str(&serde_json::Value::from(text).to_string());
    } else {
        json.push('"');
        json.push_str(text);
        json.push('"');
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::body_too_large(),
            BodyError::Incomplete => Self::body_incomplete(),
            BodyError::Stalled => Self::body_timeout(),
        }
    }
}

/// Renders the problem in the default format.
///
/// The response carries the problem as an extension. An installed
/// [`Idempotency`](crate::Idempotency) uses this extension to render the problem again in the
/// format of the service. So an extractor can reject a request without knowing the service.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render();
        self.complete(&mut response);
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients use these values to distinguish refusals and to schedule a retry.
    #[test]
    fn each_problem_has_a_code_a_status_and_a_wait() {
        let all = [
            (Problem::key_missing(), "key_missing", 400, None),
            (Problem::key_invalid("why"), "key_invalid", 400, None),
            (Problem::key_reused(), "key_reused", 409, None),
            (Problem::key_in_flight(), "key_in_flight", 409, Some(1)),
            (
                Problem::scope_missing(ScopeMissing::Token),
                "scope_missing",
                401,
                None,
            ),
            (
                Problem::scope_missing(ScopeMissing::Header),
                "scope_missing",
                400,
                None,
            ),
            (Problem::outcome_unknown(), "outcome_unknown", 409, None),
            (Problem::run_timeout(), "run_timeout", 504, None),
            (Problem::extraction_timeout(), "run_timeout", 504, None),
            (Problem::busy(), "busy", 503, Some(1)),
            (Problem::response_not_kept(), "response_not_kept", 409, None),
            (
                Problem::store_unavailable(),
                "store_unavailable",
                503,
                Some(1),
            ),
            (
                Problem::status_unavailable(),
                "store_unavailable",
                503,
                Some(1),
            ),
            (Problem::capacity(), "capacity", 503, Some(5)),
            (Problem::share(), "share", 503, Some(5)),
            (Problem::body_too_large(), "body_too_large", 413, None),
            (Problem::body_incomplete(), "body_incomplete", 400, None),
            (Problem::body_timeout(), "body_timeout", 408, None),
            (Problem::not_installed(), "not_installed", 500, None),
            (Problem::render_failed(), "render_failed", 500, None),
        ];
        for (problem, code, status, seconds) in all {
            assert_eq!(problem.code(), format!("idempotency_{code}"));
            assert_eq!(problem.status(), status, "{code}");
            assert_eq!(problem.retry_after(), seconds.map(Duration::from_secs));
            let type_uri = format!("urn:axum-idem:problem:idempotency_{code}");
            assert_eq!(problem.type_uri(), type_uri);
            assert_eq!(problem.title(), problem.kind.facts().2);
            assert_eq!(problem.detail(), problem.detail);
            let answer = problem.into_response();
            let header = |name| answer.headers().get(name).map(HeaderValue::as_bytes);
            let seconds = seconds.map(|seconds| seconds.to_string());
            assert_eq!(
                header(header::RETRY_AFTER),
                seconds.as_ref().map(String::as_bytes)
            );
            let challenge = (status == 401).then_some(&b"Bearer"[..]);
            assert_eq!(header(header::WWW_AUTHENTICATE), challenge);
            assert_eq!(header(header::LINK), None);
        }
    }

    #[tokio::test]
    async fn a_problem_is_rendered_as_problem_json() {
        let answer = Problem::key_invalid("why").into_response();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            answer.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 10)
            .await
            .expect("short");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let expected = serde_json::json!({
            "type": "urn:axum-idem:problem:idempotency_key_invalid",
            "title": "The idempotency key is not valid",
            "status": 400,
            "detail": "why",
            "code": "idempotency_key_invalid",
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn the_instance_of_a_problem_leads_to_its_record() {
        let id = RecordId::from_bytes([7; 32]);
        let mut problem = Problem::key_in_flight().about(Some(id));
        problem.detail = "\"quoted\" \\ and\na line".into();
        assert_eq!(problem.record_id(), Some(id));
        let body = axum::body::to_bytes(problem.into_response().into_body(), 1 << 10);
        let body = body.await.expect("short");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let instance = body["instance"].as_str().expect("a text");
        assert_eq!(instance.parse(), Ok(id));
        assert_eq!(body["detail"], "\"quoted\" \\ and\na line");
        assert_eq!(body["status"], 409);
    }

    #[tokio::test]
    async fn the_agentic_commerce_dialect_renders_flat_errors() {
        async fn rendered(problem: Problem) -> (u16, serde_json::Value) {
            let response = problem.in_dialect(&Dialect::acp()).render();
            let status = response.status().as_u16();
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            let body = axum::body::to_bytes(response.into_body(), 1 << 10).await;
            let body = body.expect("short");
            (status, serde_json::from_slice(&body).expect("JSON"))
        }
        for (problem, status, kind, code) in [
            (
                Problem::key_missing(),
                400,
                "invalid_request",
                "idempotency_key_required",
            ),
            (
                Problem::key_reused(),
                422,
                "invalid_request",
                "idempotency_conflict",
            ),
            (
                Problem::key_in_flight(),
                409,
                "invalid_request",
                "idempotency_in_flight",
            ),
            (
                Problem::capacity(),
                503,
                "service_unavailable",
                "idempotency_capacity",
            ),
            (
                Problem::run_timeout(),
                504,
                "processing_error",
                "idempotency_run_timeout",
            ),
        ] {
            let message = problem.detail().to_owned();
            let expected = serde_json::json!({ "type": kind, "code": code, "message": message });
            assert_eq!(rendered(problem).await, (status, expected));
        }
    }

    #[test]
    fn a_dialect_changes_only_its_own_statuses() {
        let dialect = Dialect::default()
            .missing(StatusCode::PRECONDITION_REQUIRED)
            .mismatch(StatusCode::UNPROCESSABLE_ENTITY)
            .in_flight(StatusCode::LOCKED);
        let status = |problem: Problem| problem.in_dialect(&dialect).status().as_u16();
        assert_eq!(status(Problem::key_missing()), 428);
        assert_eq!(status(Problem::key_reused()), 422);
        assert_eq!(status(Problem::key_in_flight()), 423);
        assert_eq!(status(Problem::outcome_unknown()), 409);
        assert_eq!(status(Problem::key_invalid("why")), 400);
    }
}
