//! Everything of `axum-idem` that runs. Use it by way of that crate; its generated code and this
//! runtime move together.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
mod admitting;
mod answer;
mod attempt;
mod canonical_json;
mod claiming;
mod deciding;
mod decision;
mod deferred;
mod dialect;
mod digest;
mod fingerprint;
mod heartbeat;
mod idempotency;
mod key;
mod layer;
mod lease;
mod policy;
mod problem;
#[cfg(test)]
mod properties;
mod record_id;
mod request_body;
mod run;
mod running;
mod scope;
mod settling;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

pub use answer::DoNotRecord;
pub use attempt::Attempt;
pub use deferred::Deferred;
pub use dialect::{Dialect, KeySyntax};
pub use fingerprint::{Fingerprint, FingerprintDigest};
pub use idempotency::{Idempotency, IdempotencyBuilder, OnStoreError};
pub use key::IdempotencyKey;
pub use layer::{IdempotencyFuture, IdempotencyService};
pub use problem::Problem;
pub use record_id::{ParseRecordIdError, RecordId};
pub use scope::Scope;

/// The target of every event.
const TARGET: &str = "axum_idem";

/// What generated code names, and nothing else does.
#[doc(hidden)]
pub mod __private {
    pub use axum::response::Response;

    pub use crate::admission::{Admission, ScopePart};
    pub use crate::deferred::{AnyState, Deferred, Headed, ReadsNoBody, Split, Via};
    pub use crate::idempotency::AsIdempotency;
    pub use crate::policy::{FingerprintMode, Policy, Statuses};
    pub use crate::run::Answer;
    pub use crate::scope::ScopeValue;

    /// Names the type that a handler returns, where nothing is ever returned.
    ///
    /// # Panics
    ///
    /// Always; generated code calls it in a branch that is never taken.
    #[must_use]
    pub fn never<T>() -> T {
        unreachable!("the branch is never taken")
    }
}
