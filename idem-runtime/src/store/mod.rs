//! Where claims and records live.
//!
//! [`Store`] is a trait of whole, atomic transitions on one record id. This module has three stores, one
//! in memory, one in Redis and one in PostgreSQL, and a cache in front of a store, [`NearCache`]. All of
//! them keep a [`Record`] in the same frozen form. [`guide`] shows how to write another store.

mod future;
pub mod guide;
mod memory;
mod millis;
mod near_cache;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
#[cfg(feature = "redis")]
mod redis;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use future::StoreFuture;
pub use memory::{MemoryStore, MemoryStoreBuilder, OnFull};
pub use near_cache::{NearCache, NearCacheBuilder};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresStore, PostgresStoreBuilder};
pub use record::{DecodeError, Record};
#[cfg(feature = "redis")]
pub use redis::{RedisStore, RedisStoreBuilder};
use tokio::sync::Notify;

use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
pub use crate::settings::policy::OnUnknown;

/// Where claims and records live.
///
/// Every method is one whole transition on one record id. A store keeps these rules; the engine
/// relies on each of them.
///
/// 1. Of any number of concurrent [`claim`](Store::claim)s of one record id, at most one gets
///    [`Claimed::Fresh`] until that claim is settled or its lease lapses.
/// 2. [`renew`](Store::renew), [`complete`](Store::complete), [`release`](Store::release) and
///    [`abandon`](Store::abandon) take effect only for the owner and fence that hold the claim.
///    For anybody else they change nothing and give [`Settled::Lost`].
/// 3. A lease is as long as the claim or its last renewal says, whatever the `ttl`, and lapses by
///    itself.
/// 4. A record lives for its `ttl`, counted from `complete` by the store's own clock. Reading it
///    does not prolong it. At the moment of expiry it is gone.
/// 5. A store that is full says [`Claimed::Full`]; one that is unsure gives an error. It never says
///    `Fresh` out of doubt, and it never drops a claim or a record to make room unseen.
/// 6. What it cannot decode is an error and stays where it is, never a miss.
/// 7. A fence grows with every attempt at one record id, also after the id was released, forgotten or
///    expired.
/// 8. A claim repeated by the owner that already holds it is `Fresh` again with the same fence: that
///    is how a claimer whose answer got lost learns that it has won. Once its lease has lapsed, the
///    owner is like any other claimer.
/// 9. A record comes back byte for byte as it was given, and under no other id.
/// 10. An operator's [`look_up`](Store::look_up), [`forget`](Store::forget) and
///     [`resolve`](Store::resolve) tell the truth and act at once.
///
/// The feature `testing` has a suite that runs every rule against a store, and [`guide`] shows how to
/// write one.
///
/// The futures own what they need, for they outlive the call: the engine drives them to their end
/// even when the client has gone. A future that is dropped half way leaves the old state or the new
/// one.
///
/// The trait is object-safe; an [`Idempotency`](crate::Idempotency) holds an `Arc<dyn Store>`.
pub trait Store: Send + Sync + 'static {
    /// Decides who runs the handler.
    ///
    /// With nothing stored under the id, or only what has expired, the claim is `Fresh`. A lapsed
    /// claim is taken over when its fingerprint is the same and `claim.on_unknown` is
    /// [`OnUnknown::Rerun`]; otherwise it is reported as [`Claimed::Unknown`] until its retention
    /// has passed. A takeover has the lease and the retention of its own claim, not those of the
    /// claim before it.
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed>;

    /// Prolongs the holder's lease to `lease` from now. A lapsed lease that nobody took over is
    /// renewed too.
    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled>;

    /// Puts the record in place of the holder's claim, for `ttl` from now. A lapsed claim that
    /// nobody took over is completed too.
    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled>;

    /// Removes the holder's claim: the next claim is `Fresh`, whatever its fingerprint.
    fn release(&self, holder: Holder) -> StoreFuture<Settled>;

    /// Ends the holder's lease at once and leaves the outcome unknown.
    fn abandon(&self, holder: Holder) -> StoreFuture<Settled>;

    /// What stands under the id, for an operator. Changes nothing.
    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>>;

    /// Removes whatever stands under the id, and says whether there was anything.
    fn forget(&self, id: RecordId) -> StoreFuture<bool>;

    /// Puts an operator's record in place of a claim whose outcome is unknown.
    ///
    /// Takes effect only while the claim with this fence has lapsed and nobody took it over.
    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled>;
}

/// What a store could not do. It never contains a key, a token or an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine behind the store could not be reached, or refused.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store did not answer in time.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The engine behind the store is set up in a way that would break the promise.
    #[error("the store is not fit for its purpose: {0}")]
    Unfit(Box<str>),
    /// What stands under the record id cannot be read. It was left as it is.
    #[error("what the store holds cannot be read")]
    Undecodable(#[source] DecodeError),
}

/// One attempt to become the one who runs the handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The record that is claimed.
    pub id: RecordId,
    /// Tells a retry of the first request from another request under the same key.
    pub fingerprint: Fingerprint,
    /// Who claims. No two attempts have the same owner.
    pub owner: Owner,
    /// How long the claim holds without a renewal.
    pub lease: Duration,
    /// How long a claim that lapsed is remembered as unknown, counted from its lapse.
    pub retention: Duration,
    /// What becomes of a lapsed claim.
    pub on_unknown: OnUnknown,
    /// Whether the caller will wait when the id is in flight, and wants to be woken.
    pub wait: bool,
}

impl Claim {
    /// A claim by a new owner, which reruns what lapsed and does not wait.
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
        }
    }
}

/// What came of a claim.
#[derive(Debug)]
#[non_exhaustive]
pub enum Claimed {
    /// The caller holds the claim and runs the handler.
    Fresh {
        /// Grows with every attempt at this record id.
        fence: u64,
        /// 1 for the first attempt, one more for each that took over a lapsed claim.
        attempt: u32,
    },
    /// Somebody else holds the claim.
    InFlight {
        /// Of the request that holds it.
        fingerprint: Fingerprint,
        /// How long the claim holds if it is not renewed.
        lease_left: Duration,
        /// Wakes a caller that asked to `wait`, where the store can.
        changed: Option<Changed>,
    },
    /// An earlier attempt was settled with this record.
    Recorded {
        /// What is replayed.
        record: Record,
        /// How much of its `ttl` is left, so that a cache never outlives it.
        expires_in: Duration,
    },
    /// An earlier attempt ended without an answer, and is not to be run again by this caller.
    Unknown {
        /// Of the request that was cut off.
        fingerprint: Fingerprint,
    },
    /// There is no room for another claim.
    Full,
}

/// Who holds a claim. `complete`, `renew`, `release` and `abandon` act for it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The record that is claimed.
    pub id: RecordId,
    /// The attempt that claimed it.
    pub owner: Owner,
    /// The fence that the claim was given.
    pub fence: u64,
}

/// Whether a transition took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// It did.
    Done,
    /// It did not, for the caller does not hold the claim any more. Nothing was changed.
    Lost,
}

/// What stands under a record id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Entry {
    /// A claim whose lease holds.
    InFlight {
        /// Of the request that holds it.
        fingerprint: Fingerprint,
        /// The fence of the attempt.
        fence: u64,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// How long the claim holds if it is not renewed.
        lease_left: Duration,
    },
    /// A claim that lapsed without an answer.
    Unknown {
        /// Of the request that was cut off.
        fingerprint: Fingerprint,
        /// The fence of the attempt.
        fence: u64,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// How long this is remembered.
        retained_for: Duration,
    },
    /// A finished record.
    Recorded {
        /// What is replayed.
        record: Record,
        /// How long it is replayed.
        expires_in: Duration,
    },
}

/// Names one attempt among all that there ever are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner([u8; 16]);

impl Owner {
    /// A new owner, equal to no other of this or another process.
    ///
    /// # Panics
    ///
    /// When the system has no randomness to give at the first call.
    #[must_use]
    pub fn unique() -> Self {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);

        let mut bytes = [0; 16];
        let process = PROCESS.get_or_init(|| getrandom::u64().expect("the system has no entropy"));
        bytes[..8].copy_from_slice(&process.to_le_bytes());
        bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// An owner from stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({:032x})", u128::from_be_bytes(self.0))
    }
}

/// Wakes those who wait for a claim to end.
///
/// A store hands one out with [`Claimed::InFlight`], taken under the same lock under which it saw
/// the claim, so that no end is missed.
#[derive(Debug)]
pub struct Changed(tokio::sync::futures::OwnedNotified);

impl Changed {
    /// A waiter for the next `notify_waiters` on `notify`.
    #[must_use]
    pub fn new(notify: Arc<Notify>) -> Self {
        Self(notify.notified_owned())
    }

    /// Completes when the claim has been settled. Cancel-safe.
    pub async fn wait(self) {
        self.0.await;
    }
}
