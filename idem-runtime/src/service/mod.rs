//! TODO

pub(crate) mod backoff;
pub(crate) mod deadline;
pub(crate) mod idempotency;
pub(crate) mod layer;
pub(crate) mod unwritten;
