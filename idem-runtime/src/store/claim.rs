//! A claim, and its results.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{OnUnknown, Origin, Owner, Record};
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;

/// One attempt to get the right to run the handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The record that is claimed.
    pub id: RecordId,
    /// Distinguishes a retry of the first request from another request with the same key.
    pub fingerprint: Fingerprint,
    /// Who claims. No two attempts have the same owner.
    pub owner: Owner,
    /// How long the claim holds without a renewal.
    pub lease: Duration,
    /// How long a lapsed claim is remembered as unknown, counted from the end of its lease. When its holder calls
    /// [`Store::abandon`](super::Store::abandon), also after the end of the lease, it is counted from this call.
    pub retention: Duration,
    /// How a lapsed claim is handled.
    pub on_unknown: OnUnknown,
    /// Whether the caller wants to be woken when the claim that is in flight ends.
    pub wait: bool,
    /// Where the request comes from, for operators. The store keeps the origin of the first attempt.
    pub origin: Origin,
    /// Whether all callers share the scope. Such a scope has no limited share of the store: see
    /// [`MemoryStoreBuilder::max_share`](super::MemoryStoreBuilder::max_share).
    pub is_global: bool,
    /// Whether the handler's only effects are those of a transaction that records its response. The store
    /// need not wait until such a claim is durable: a crash that loses the claim loses the transaction too.
    pub is_transactional: bool,
}

impl Claim {
    /// Returns a claim by a new owner, with an unknown origin and a global scope. It takes over a lapsed
    /// claim and does not wait.
    #[must_use]
    pub fn new(
        id: RecordId,
        fingerprint: Fingerprint,
        lease: Duration,
        retention: Duration,
    ) -> Self {
        Self {
            id,
            fingerprint,
            owner: Owner::unique(),
            lease,
            retention,
            on_unknown: OnUnknown::Rerun,
            wait: false,
            origin: Origin::default(),
            is_global: true,
            is_transactional: false,
        }
    }
}

/// The result of a claim.
#[derive(Debug)]
#[non_exhaustive]
pub enum Claimed {
    /// The caller holds the claim and runs the handler.
    Fresh {
        /// Grows with every attempt at this record id.
        fence: u64,
        /// 1 for the first attempt, and one more for each takeover of a lapsed claim.
        attempt: u32,
    },
    /// Another owner holds the claim.
    InFlight {
        /// The fingerprint of the request that holds the claim.
        fingerprint: Fingerprint,
        /// How long the claim holds if it is not renewed.
        lease_left: Duration,
        /// Wakes a caller that set `wait`. `None` when the store cannot wake callers.
        changed: Option<Changed>,
    },
    /// An earlier attempt was settled with this record.
    Recorded {
        /// The record to replay.
        record: Record,
        /// How much of the record's `ttl` is left, so that a cache never keeps the record longer.
        expires_in: Duration,
    },
    /// An earlier attempt ended without a response, and this caller must not run the handler again.
    Unknown {
        /// The fingerprint of the request that was interrupted.
        fingerprint: Fingerprint,
    },
    /// There is no room for another claim.
    Full,
    /// There is room, but the scope of the record holds its share of the store already.
    OverShare,
}

/// Wakes callers that wait for a claim to end.
///
/// A store returns a `Changed` with [`Claimed::InFlight`]. The store creates it under the same lock
/// under which it read the claim, so that the caller cannot miss the end of the claim.
#[derive(Debug)]
pub struct Changed(tokio::sync::futures::OwnedNotified);

impl Changed {
    /// A waiter for the next `notify_waiters` on `notify`.
    #[must_use]
    pub fn new(notify: Arc<Notify>) -> Self {
        Self(notify.notified_owned())
    }

    /// Completes when the claim has ended. Cancel-safe.
    pub async fn wait(self) {
        self.0.await;
    }
}
