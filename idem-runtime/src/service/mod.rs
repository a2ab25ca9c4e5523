//! What one service chose, its store, and what its operators can do.
//!
//! Also what the process remembers beside the store: records that are not written yet, and claims whose
//! reply was lost. Runs no handler.

pub(crate) mod backoff;
pub(crate) mod builder;
pub(crate) mod deadline;
pub(crate) mod idempotency;
pub(crate) mod layer;
pub(crate) mod operators;
pub(crate) mod orphans;
pub(crate) mod permits;
pub(crate) mod settings;
pub(crate) mod unwritten;
