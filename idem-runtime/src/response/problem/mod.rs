//! Describes a refusal, and renders it as `application/problem+json` (RFC 9457). Each refusal has a stable code.

mod commit;
mod kind;
mod refusals;
mod render;

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use self::kind::Kind;
use crate::request::record_id::RecordId;
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
    kind: Kind,
    status: StatusCode,
    detail: Cow<'static, str>,
    type_uri: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// The record that the request is about, once it is known.
    record_id: Option<RecordId>,
    /// The documentation page of the service, for the `Link` header.
    documentation: Option<Box<str>>,
    format: ProblemFormat,
}

impl Problem {
    fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
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

    fn retry_after_seconds(mut self, seconds: u64) -> Self {
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
