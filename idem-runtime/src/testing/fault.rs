//! The operations of a store, and the faults that can be injected into them.

use std::time::Duration;

/// A transition of the [`Store`](crate::store::Store) trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Store::claim`](crate::store::Store::claim).
    Claim,
    /// [`Store::renew`](crate::store::Store::renew).
    Renew,
    /// [`Store::complete`](crate::store::Store::complete).
    Complete,
    /// [`Store::release`](crate::store::Store::release).
    Release,
    /// [`Store::abandon`](crate::store::Store::abandon).
    Abandon,
    /// [`Store::look_up`](crate::store::Store::look_up).
    LookUp,
    /// [`Store::forget`](crate::store::Store::forget).
    Forget,
    /// [`Store::resolve`](crate::store::Store::resolve).
    Resolve,
    /// [`Store::list`](crate::store::Store::list).
    List,
    /// [`Store::stats`](crate::store::Store::stats).
    Stats,
    /// [`Store::forget_scope`](crate::store::Store::forget_scope).
    ForgetScope,
    /// [`Store::commit_state`](crate::store::Store::commit_state).
    CommitState,
}

impl Operation {
    /// Every transition.
    pub const ALL: [Self; 12] = [
        Self::Claim,
        Self::Renew,
        Self::Complete,
        Self::Release,
        Self::Abandon,
        Self::LookUp,
        Self::Forget,
        Self::Resolve,
        Self::List,
        Self::Stats,
        Self::ForgetScope,
        Self::CommitState,
    ];
}

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
