//! TODO

pub(crate) mod mistakes;
pub(crate) mod words;
