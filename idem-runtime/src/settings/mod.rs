//! TODO

pub(crate) mod dialect;
pub(crate) mod policy;
