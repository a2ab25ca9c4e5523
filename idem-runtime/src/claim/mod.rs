//! TODO

pub(crate) mod ask;
pub(crate) mod claiming;
pub(crate) mod decision;
