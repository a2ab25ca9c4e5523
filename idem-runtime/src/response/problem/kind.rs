//! The kinds of refusals, each with its code, its default status and its title.

use http::StatusCode;

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
    pub(super) const fn facts(self) -> (&'static str, StatusCode, &'static str) {
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
