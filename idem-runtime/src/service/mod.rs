//! The settings and the store of one service, and the operations for its operators.
//!
//! This folder also contains the state that the process keeps in addition to the store: records
//! that are not written yet, and claims whose reply was lost. It runs no handler.

pub(crate) mod background;
pub(crate) mod backoff;
pub(crate) mod builder;
pub(crate) mod current;
pub(crate) mod deadline;
pub(crate) mod idempotency;
pub(crate) mod layer;
pub(crate) mod listing;
pub(crate) mod operators;
pub(crate) mod orphans;
pub(crate) mod permits;
pub(crate) mod settings;
pub(crate) mod slot;
pub(crate) mod stack;
pub(crate) mod status;
pub(crate) mod unwritten;
