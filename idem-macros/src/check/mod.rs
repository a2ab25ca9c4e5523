//! Checks every rule about the handler, alone and together with the attribute's arguments, and reports
//! all mistakes. The result is the plan of the expansion, or the repair that a handler with mistakes
//! needs. This folder must not know the generated code.

pub(crate) mod header_name;
pub(crate) mod item;
pub(crate) mod key;
pub(crate) mod other_attributes;
pub(crate) mod plan;
pub(crate) mod repair;
pub(crate) mod scope;
pub(crate) mod scope_names;
pub(crate) mod signature;
pub(crate) mod unknown;
