//! Reports about the requests, the attempts and the store of a service.
//!
//! [`Observer`] is the trait that receives the reports. The other types are its reports. [`Outcome`] has the
//! words that logs and metrics share.

mod events;
mod observer;
mod observing;
mod outcome;

/// The target of every event in the log.
pub(crate) const TARGET: &str = "axum_idem";

pub use self::events::{AttemptEnd, CallResult, Decided, Operation, Place, StoreCall, Waited};
pub use self::observer::Observer;
pub(crate) use self::observing::Observing;
pub use self::outcome::Outcome;
