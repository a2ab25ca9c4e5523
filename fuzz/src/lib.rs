//! Fuzz targets for all code that parses untrusted bytes.
//!
//! Each target is a plain function that panics when a property does not hold. cargo-fuzz runs the
//! targets. The tests of this crate also run them, with the seeds and their mutations.

mod attribute;
#[path = "../../idem-runtime/src/request/canonical_json/mod.rs"]
mod canonical_json;
mod json;
mod key;
mod record;
mod sealed;
#[cfg(test)]
mod tests;

pub use attribute::attribute;
pub use json::json;
pub use key::key;
pub use record::record;
pub use sealed::sealed;
