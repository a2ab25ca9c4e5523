#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use idem_macros::idempotent;
#[doc(hidden)]
pub use idem_runtime::__private;
pub use idem_runtime::{
    Attempt, CommitError, Deferred, Dialect, DoNotRecord, Fingerprint, FingerprintDigest, Headed,
    Idempotency, IdempotencyBuilder, IdempotencyFuture, IdempotencyKey, IdempotencyService,
    KeyStatus, KeySyntax, NotRecordable, OnStoreError, OutcomeUnknown, ParseRecordIdError,
    ParseScopeIdError, ParseShortIdError, ParseTraceIdError, Prepared, Problem, RecordId, Scope,
    ScopeId, ShortId, TraceId, observe, store,
};

#[doc(no_inline)]
pub use idem_runtime::observe::Observer;

#[cfg(any(feature = "aide", feature = "utoipa"))]
pub use idem_runtime::ApiDocument;

#[cfg(feature = "console")]
pub use idem_runtime::console;
#[cfg(feature = "metrics")]
pub use idem_runtime::metrics;
/// The version of sqlx whose pools the stores take. A service that imports sqlx from here cannot have another version.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[doc(no_inline)]
pub use idem_runtime::sqlx;

#[cfg(feature = "testing")]
#[doc = include_str!("testing.md")]
pub use idem_runtime::testing;

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

#[doc = include_str!("../docs/production.md")]
pub mod production {}

#[doc = include_str!("compile_errors.md")]
pub mod compile_errors {}
