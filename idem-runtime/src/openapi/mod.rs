//! Documents annotated operations in OpenAPI: the key header, the replay header and the problems.
//!
//! `facts.rs` contains what the attribute knows about an endpoint, and `operation.rs` what follows for one operation
//! of a service. `utoipa.rs` and `aide.rs` write this into the document of one library. `described.rs` contains the types
//! by which `aide` sees a handler.

#[cfg(feature = "aide")]
mod aide;
#[cfg(feature = "aide")]
pub(crate) mod described;
pub(crate) mod document;
pub(crate) mod facts;
mod operation;
#[cfg(feature = "utoipa")]
pub(crate) mod utoipa;
