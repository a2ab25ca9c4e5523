//! The faults that can be injected into a store.

use std::time::Duration;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call is not applied, and returns [`Unavailable`](crate::store::StoreError::Unavailable).
    ErrBefore,
    /// The call is applied, but returns [`Unavailable`](crate::store::StoreError::Unavailable).
    ErrAfter,
    /// The call is applied after this delay, even if the caller has given up by then.
    Delay(Duration),
    /// The call is applied, and returns after this delay.
    DelayReply(Duration),
    /// The call is not applied, and never returns.
    Hang,
    /// The call is applied, and never returns.
    DropReply,
    /// The call is applied when [`resume`](super::FaultStore::resume) is called, even if the caller
    /// has given up by then.
    Pause,
    /// The call is not applied, and returns [`Undecodable`](crate::store::StoreError::Undecodable).
    Undecodable,
}
