//! Prints for people and for programs.

pub(crate) mod entry;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod time;
