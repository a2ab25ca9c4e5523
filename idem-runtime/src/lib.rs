//! The runtime of `axum-idem`. Use this crate through `axum-idem`, because the generated code and
//! this runtime must have matching versions.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod attempt;
mod claim;
#[cfg(feature = "console")]
pub mod console;
mod handler;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod observe;
#[cfg(any(feature = "aide", feature = "utoipa"))]
mod openapi;
mod request;
mod response;
mod service;
mod settings;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;
mod trace;

pub use attempt::commit::Prepared;
pub use attempt::commit_error::{CommitError, NotRecordable};
pub use attempt::handle::Attempt;
pub use handler::deferred::Deferred;
pub use handler::headed::Headed;
pub use handler::key::IdempotencyKey;
#[cfg(any(feature = "aide", feature = "utoipa"))]
pub use openapi::document::ApiDocument;
pub use request::fingerprint::{Fingerprint, FingerprintDigest};
pub use request::record_id::{ParseRecordIdError, ParseShortIdError, RecordId, ShortId};
pub use request::scope::Scope;
pub use request::scope_id::{ParseScopeIdError, ScopeId};
pub use request::trace_context::{ParseTraceIdError, TraceId};
pub use response::do_not_record::DoNotRecord;
pub use response::key_status::KeyStatus;
pub use response::outcome_unknown::OutcomeUnknown;
pub use response::problem::Problem;
pub use service::builder::IdempotencyBuilder;
pub use service::idempotency::Idempotency;
pub use service::layer::{IdempotencyFuture, IdempotencyService};
pub use service::settings::OnStoreError;
pub use settings::dialect::{Dialect, KeySyntax};

/// The version of sqlx whose pools the stores take. A service that imports sqlx from here cannot have another version.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[doc(no_inline)]
pub use sqlx;

/// The names that generated code uses. Not part of the public API.
#[doc(hidden)]
pub mod __private {
    pub use axum::response::Response;

    pub use crate::handler::admission::{Admission, ScopePart};
    pub use crate::handler::deferred::{Deferred, Via};
    pub use crate::handler::headed::{AnyState, Headed, ReadsNoBody, Split};
    pub use crate::handler::own_key::{KeyArgument, KeyChosen, KeyPart, KeyValue, TakesKey};
    pub use crate::handler::run::HandlerOutput;
    pub use crate::request::scope::ScopeValue;
    pub use crate::service::idempotency::AsIdempotency;
    pub use crate::settings::policy::{FingerprintMode, Policy, Statuses};

    #[cfg(feature = "aide")]
    pub use crate::openapi::described::{Declared, Described, Undeclared};
    #[cfg(any(feature = "aide", feature = "utoipa"))]
    pub use crate::openapi::facts::{Chars, KeyName};
    #[cfg(feature = "utoipa")]
    pub use crate::openapi::utoipa::KeyParameter;

    /// Gives a branch the type that a handler returns, although the branch never runs.
    ///
    /// # Panics
    ///
    /// Always panics. Generated code calls this function only in a branch that is never taken.
    #[must_use]
    pub fn never<T>() -> T {
        unreachable!("the branch is never taken")
    }
}
