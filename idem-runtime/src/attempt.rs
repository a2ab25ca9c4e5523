//! What a handler can know of the attempt that it is.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use http::Extensions;
use http::request::Parts;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::record_id::RecordId;
use crate::store::{Holder, Owner};

/// The attempt that a handler is: an extractor for one of its head arguments.
///
/// A handler may run again under one key: after a crash, after a panic, or when its answer said that
/// it is to be retried. What it calls meanwhile should be told apart from a second order, and this
/// gives it the keys for that:
///
/// ```
/// use idem_runtime::Attempt;
///
/// async fn charge(attempt: Attempt) {
///     let charge_key = attempt.derive_key("charge");
///     let receipt_key = attempt.derive_key("receipt");
///     assert_ne!(charge_key, receipt_key);
///     // Sent as `Idempotency-Key` of the calls this handler makes.
/// }
/// # let _ = charge;
/// ```
///
/// It is filled when the claim is made, so what an extractor reads from it is that of a request
/// without a key.
#[derive(Clone)]
pub struct Attempt(Arc<Shared>);

#[derive(Default)]
struct Shared {
    claimed: OnceLock<Claimed>,
    /// Takes the place of a record id where there is no record.
    unkeyed: OnceLock<Owner>,
    is_lost: AtomicBool,
    lost: Notify,
}

struct Claimed {
    holder: Holder,
    number: u32,
}

impl Attempt {
    /// 1 for the first attempt at a key, one more for each that took over from one that was cut off.
    ///
    /// 1 for a request without a key.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.0.claimed.get().map_or(1, |claimed| claimed.number)
    }

    /// Grows with every attempt at one key, so that a resource which remembers the highest one it
    /// has seen can refuse an attempt that was overtaken. `None` for a request without a key.
    #[must_use]
    pub fn fence(&self) -> Option<u64> {
        self.0.claimed.get().map(|claimed| claimed.holder.fence)
    }

    /// The id of the record, as an operator looks it up. `None` for a request without a key.
    #[must_use]
    pub fn record_id(&self) -> Option<RecordId> {
        self.0.claimed.get().map(|claimed| claimed.holder.id)
    }

    /// A key for a call that the handler makes: the same in every attempt at one record, and
    /// different for every record and label. 64 hexadecimal digits.
    ///
    /// A request without a key gives keys of its own, since nobody can retry it.
    #[must_use]
    pub fn derive_key(&self, label: &str) -> String {
        let mut hasher = Sha256::new();
        if let Some(id) = self.record_id() {
            hasher.update(b"axum-idem derived key v1\0");
            hasher.update(id.as_bytes());
        } else {
            hasher.update(b"axum-idem unkeyed v1\0");
            hasher.update(self.0.unkeyed.get_or_init(Owner::unique).as_bytes());
        }
        hasher.update(label);
        RecordId::from_bytes(hasher.finalize().into()).to_string()
    }

    /// Whether another attempt has taken over, since this one's lease could not be renewed in time.
    ///
    /// Its answer will go to its own client only. It is for the handler to stop.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.is_lost.load(Ordering::Acquire)
    }

    /// Completes when another attempt has taken over. Cancel-safe.
    pub async fn lost(&self) {
        loop {
            // Taken before the look, so that no loss falls between the two.
            let lost = self.0.lost.notified();
            if self.is_lost() {
                return;
            }
            lost.await;
        }
    }

    /// The one attempt that everybody who asks this request for it gets.
    pub(crate) fn of(extensions: &mut Extensions) -> Self {
        extensions
            .get_or_insert_with(|| Self(Arc::default()))
            .clone()
    }

    pub(crate) fn claimed(&self, holder: Holder, number: u32) {
        // A request is claimed once.
        let _ = self.0.claimed.set(Claimed { holder, number });
    }

    pub(crate) fn lose(&self) {
        self.0.is_lost.store(true, Ordering::Release);
        self.0.lost.notify_waiters();
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("number", &self.number())
            .field("fence", &self.fence())
            .field("record_id", &self.record_id())
            .finish_non_exhaustive()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Attempt {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&mut parts.extensions))
    }
}
