//! TODO

pub(crate) mod collect;
pub(crate) mod degraded;
pub(crate) mod problem;
