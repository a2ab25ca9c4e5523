//! Which call of a store fails, and how.

use std::time::Duration;

/// A transition of the [`Store`] trait.
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
}

impl Operation {
    /// Every transition.
    pub const ALL: [Self; 8] = [
        Self::Claim,
        Self::Renew,
        Self::Complete,
        Self::Release,
        Self::Abandon,
        Self::LookUp,
        Self::Forget,
        Self::Resolve,
    ];
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is not applied, and gives [`StoreError::Unavailable`].
    ErrBefore,
    /// It is applied, and gives [`StoreError::Unavailable`] all the same.
    ErrAfter,
    /// It is applied this much later, also when its caller has given up by then.
    Delay(Duration),
    /// It is applied, and answers this much later.
    DelayReply(Duration),
    /// It is not applied, and never answers.
    Hang,
    /// It is applied, and never answers.
    DropReply,
    /// It is applied when [`FaultStore::resume`](super::FaultStore::resume) is called, also when its caller has given up by
    /// then.
    Pause,
    /// It is not applied, and gives [`StoreError::Undecodable`].
    Undecodable,
}
