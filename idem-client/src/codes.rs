//! The codes of the problems that the server sends. A code never changes.
//!
//! The documentation of `axum_idem::Problem` says when the server sends each code.

macro_rules! codes {
    ($($(#[$docs:meta])+ $name:ident = $code:literal;)+) => {
        $($(#[$docs])+ pub const $name: &str = $code;)+

        /// All codes of this version.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

codes! {
    /// The endpoint requires a key, and the request has none.
    KEY_MISSING = "idempotency_key_missing";
    /// The key is malformed, too long or repeated.
    KEY_INVALID = "idempotency_key_invalid";
    /// The key was used with a different request.
    KEY_REUSED = "idempotency_key_reused";
    /// The first request with the key still runs. A retry gets its response.
    KEY_IN_FLIGHT = "idempotency_key_in_flight";
    /// The request does not identify the owner of its key.
    SCOPE_MISSING = "idempotency_scope_missing";
    /// The outcome of the first request is unknown, and the server does not run it again.
    OUTCOME_UNKNOWN = "idempotency_outcome_unknown";
    /// The handler ran for too long and was ended.
    RUN_TIMEOUT = "idempotency_run_timeout";
    /// Too many requests with a key are running.
    BUSY = "idempotency_busy";
    /// The first request was executed, and its response was not recorded.
    RESPONSE_NOT_KEPT = "idempotency_response_not_kept";
    /// The store of the server is not available.
    STORE_UNAVAILABLE = "idempotency_store_unavailable";
    /// The store of the server is full.
    CAPACITY = "idempotency_capacity";
    /// The caller holds its share of the store.
    SHARE = "idempotency_share";
    /// The body is too long.
    BODY_TOO_LARGE = "idempotency_body_too_large";
    /// The body ended early. A retry may arrive completely.
    BODY_INCOMPLETE = "idempotency_body_incomplete";
    /// The body did not arrive in time.
    BODY_TIMEOUT = "idempotency_body_timeout";
    /// Another attempt has taken over, and this request had no effect. A retry gets the response of the other attempt.
    OVERTAKEN = "idempotency_overtaken";
    /// The transaction of the handler could not be committed, and the request had no effect.
    COMMIT_FAILED = "idempotency_commit_failed";
    /// The server cannot commit the effect together with its response. The request had no effect.
    NOT_TRANSACTIONAL = "idempotency_not_transactional";
    /// The server is not configured for keys.
    NOT_INSTALLED = "idempotency_not_installed";
    /// The server failed to render a problem.
    RENDER_FAILED = "idempotency_render_failed";
}

/// The codes that differ in the dialect of the Agentic Commerce Protocol.
pub mod acp {
    /// [`KEY_MISSING`](super::KEY_MISSING) in this dialect.
    pub const KEY_REQUIRED: &str = "idempotency_key_required";
    /// [`KEY_REUSED`](super::KEY_REUSED) in this dialect.
    pub const CONFLICT: &str = "idempotency_conflict";
    /// [`KEY_IN_FLIGHT`](super::KEY_IN_FLIGHT) in this dialect.
    pub const IN_FLIGHT: &str = "idempotency_in_flight";
}
