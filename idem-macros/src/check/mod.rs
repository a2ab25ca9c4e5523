//! TODO

pub(crate) mod scope;
pub(crate) mod scope_names;
pub(crate) mod signature;
