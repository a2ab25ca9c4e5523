//! TODO

pub(crate) mod fallback;
pub(crate) mod function;
pub(crate) mod parameters;
pub(crate) mod returns;
