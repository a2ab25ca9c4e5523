//! Collects compile errors and words their texts. This folder must not know the attribute, the handler
//! or any rule about them.

pub(crate) mod mistakes;
pub(crate) mod words;
