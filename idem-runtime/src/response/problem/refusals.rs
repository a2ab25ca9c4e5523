//! The problems of refused requests, except those of a commit.

use super::Problem;
use super::kind::Kind;
use crate::request::body::BodyError;
use crate::request::scope::ScopeMissing;

impl Problem {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse;
    use http::{HeaderValue, header};

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
            let response = problem.into_response();
            let header = |name| response.headers().get(name).map(HeaderValue::as_bytes);
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
}
