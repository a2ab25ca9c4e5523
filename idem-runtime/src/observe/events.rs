//! The reports that an observer receives.

use std::time::Duration;

use super::Outcome;

/// The decision about one request with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided {
    /// The path of the handler, such as `desk::place_trade`.
    pub endpoint: &'static str,
    /// The decision.
    pub outcome: Outcome,
    /// The length of the replayed record in bytes, if the request got a replay.
    pub replayed_bytes: Option<u64>,
}

/// The end of the wait of a request with `in_flight = wait(…)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waited {
    /// The path of the handler.
    pub endpoint: &'static str,
    /// The decision after the wait. [`Outcome::InFlight`] when the time was over.
    pub outcome: Outcome,
    /// How long the request waited.
    pub waited: Duration,
}

/// The end of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptEnd {
    /// The path of the handler.
    pub endpoint: &'static str,
    /// How the attempt ended: [`Recorded`](Outcome::Recorded), [`Released`](Outcome::Released),
    /// [`Unknown`](Outcome::Unknown) or [`Overtaken`](Outcome::Overtaken).
    pub outcome: Outcome,
    /// The time from the claim until the store had settled it.
    pub took: Duration,
    /// The length of the record in bytes, if the attempt left a record.
    pub recorded_bytes: Option<u64>,
}

/// Where an attempt runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// In the task of its request.
    Request,
    /// In a task of its own, because its client has disconnected or a layer has dropped its future.
    Background,
}

impl Place {
    /// The word that metrics use: `request` or `background`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Background => "background",
        }
    }
}

/// One call of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCall {
    /// The name of the store: see [`Store::name`](crate::store::Store::name).
    pub store: &'static str,
    /// The called method.
    pub operation: Operation,
    /// How the call ended.
    pub result: CallResult,
    /// The time from the call until its result.
    pub took: Duration,
}

/// A method of the [`Store`](crate::store::Store) trait that calls the engine behind it.
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
    /// [`Store::remove_expired`](crate::store::Store::remove_expired).
    RemoveExpired,
    /// [`Store::diagnose`](crate::store::Store::diagnose).
    Diagnose,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 14] = [
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
        Self::RemoveExpired,
        Self::Diagnose,
    ];

    /// The name of the method.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Complete => "complete",
            Self::Release => "release",
            Self::Abandon => "abandon",
            Self::LookUp => "look_up",
            Self::Forget => "forget",
            Self::Resolve => "resolve",
            Self::List => "list",
            Self::Stats => "stats",
            Self::ForgetScope => "forget_scope",
            Self::CommitState => "commit_state",
            Self::RemoveExpired => "remove_expired",
            Self::Diagnose => "diagnose",
        }
    }
}

/// How a call of the store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallResult {
    /// The store replied.
    Done,
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable).
    Unavailable,
    /// [`StoreError::TimedOut`](crate::store::StoreError::TimedOut) or
    /// [`StoreError::Busy`](crate::store::StoreError::Busy): the store gave up.
    TimedOut,
    /// The caller gave up: `store_timeout` or a part of it has passed, the client has disconnected, or a
    /// renewal is no longer needed.
    Dropped,
    /// [`StoreError::Unfit`](crate::store::StoreError::Unfit).
    Unfit,
    /// [`StoreError::Undecodable`](crate::store::StoreError::Undecodable).
    Undecodable,
    /// Another error, such as [`StoreError::Unsupported`](crate::store::StoreError::Unsupported).
    Other,
}

impl CallResult {
    /// The word that metrics use, such as `timed_out`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Dropped => "dropped",
            Self::Unfit => "unfit",
            Self::Undecodable => "undecodable",
            Self::Other => "other",
        }
    }
}
