//! What a handler can know about its own attempt.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use http::Extensions;
use http::request::Parts;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::store::{Holder, Owner};

/// Extractor that tells a handler which attempt it is.
///
/// A handler may run again under one key: after a crash, after a panic, or because its response asked
/// for a retry. When it calls other services, they have to recognize the repeated call, and this
/// derives the keys for that:
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
/// It is filled when the key is claimed. An extractor that reads it earlier sees the values of a request
/// without a key.
///
/// A handler that passes its request on to another annotated handler keeps its own attempt. The other
/// handler has one of its own when its key is claimed, and shares that of the first handler until then
/// and without a key.
#[derive(Clone)]
pub struct Attempt(Arc<Shared>);

#[derive(Default)]
struct Shared {
    claimed: OnceLock<ClaimFacts>,
    /// The attempt of the handler that passed the request on.
    outer: Option<Attempt>,
    /// Takes the place of a record id where there is no record.
    unkeyed: OnceLock<Owner>,
    is_lost: AtomicBool,
    lost: Notify,
}

/// What is known of an attempt once its key is claimed.
#[derive(Clone, Copy)]
pub(crate) struct ClaimFacts {
    pub(crate) holder: Holder,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) number: u32,
}

impl Attempt {
    /// 1 for the first attempt at a key, one more for each that took over from one that was cut off.
    ///
    /// 1 for a request without a key.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.claimed().map_or(1, |claimed| claimed.number)
    }

    /// Grows with every attempt at one key, so that a resource which remembers the highest one it
    /// has seen can refuse an attempt that was overtaken. `None` for a request without a key.
    #[must_use]
    pub fn fence(&self) -> Option<u64> {
        self.claimed().map(|claimed| claimed.holder.fence)
    }

    /// The id of the record, as an operator looks it up. `None` for a request without a key.
    #[must_use]
    pub fn record_id(&self) -> Option<RecordId> {
        self.claimed().map(|claimed| claimed.holder.id)
    }

    /// A key for a call that the handler makes, as 64 hexadecimal digits.
    ///
    /// It is the same in every attempt at one request, and different for every record, request and
    /// label. A corrected request under a key that was released derives new keys. A request without
    /// a key derives keys of its own, because nobody can retry it.
    ///
    /// The endpoint's `fingerprint` decides which requests differ. Under `fingerprint = none` a corrected
    /// body derives the same keys, and so does a change outside the members that
    /// `fingerprint = json("/…")` names.
    ///
    /// The other service must not remember a derived key for longer than the `ttl` of the endpoint.
    /// After the `ttl`, an equal request under the same key is a new operation. It derives the same
    /// keys, and a service that remembers them returns its old response.
    #[must_use]
    pub fn derive_key(&self, label: &str) -> String {
        let mut hasher = Sha256::new();
        if let Some(claimed) = self.claimed() {
            hasher.update(b"axum-idem derived key v2\0");
            hasher.update(claimed.holder.id.as_bytes());
            hasher.update(claimed.fingerprint.as_bytes());
        } else {
            hasher.update(b"axum-idem unkeyed v1\0");
            let unkeyed = &self.effective().0.unkeyed;
            hasher.update(unkeyed.get_or_init(Owner::unique).as_bytes());
        }
        hasher.update(label);
        RecordId::from_bytes(hasher.finalize().into()).to_string()
    }

    /// Whether another attempt may run from now on.
    ///
    /// That is so when another attempt has taken over because the lease of this one could not be renewed in
    /// time. The response of this attempt then goes to its own client only, and the handler should stop.
    /// It is also so when this attempt has run for as long as
    /// [`max_run`](crate::IdempotencyBuilder::max_run) allows. The handler is dropped then, and tasks that it
    /// spawned should stop.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.effective().0.is_lost.load(Ordering::Acquire)
    }

    /// Completes when [`is_lost`](Self::is_lost) becomes true. Cancel-safe.
    pub async fn lost(&self) {
        loop {
            // Taken before the look, so that no loss falls between the two.
            let attempt = self.effective();
            let lost = attempt.0.lost.notified();
            if attempt.0.is_lost.load(Ordering::Acquire) {
                return;
            }
            lost.await;
        }
    }

    /// The attempt that every extractor of this request gets.
    ///
    /// One that is claimed already belongs to a handler that passes its request on, or that extracts
    /// its own attempt. The attempt that is returned then shares it until it is claimed itself.
    fn of(extensions: &mut Extensions) -> Self {
        let outer = match extensions.get::<Self>() {
            Some(attempt) if attempt.0.claimed.get().is_none() => return attempt.clone(),
            outer => outer.cloned(),
        };
        let attempt = Self(Arc::new(Shared {
            outer,
            ..Shared::default()
        }));
        extensions.insert(attempt.clone());
        attempt
    }

    /// The attempt of a request whose key is claimed.
    pub(crate) fn claim(extensions: &mut Extensions, claimed: ClaimFacts) -> Self {
        let attempt = Self::of(extensions);
        // Fails only when requests that share their extensions are claimed at the same moment.
        if attempt.0.claimed.set(claimed).is_ok() {
            return attempt;
        }
        let attempt = Self(Arc::new(Shared {
            claimed: claimed.into(),
            ..Shared::default()
        }));
        extensions.insert(attempt.clone());
        attempt
    }

    /// This attempt once it is claimed, or else the one that it shares.
    fn effective(&self) -> &Self {
        match &self.0.outer {
            Some(outer) if self.0.claimed.get().is_none() => outer.effective(),
            _ => self,
        }
    }

    fn claimed(&self) -> Option<&ClaimFacts> {
        self.effective().0.claimed.get()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(id: u8, fingerprint: u8, number: u32) -> ClaimFacts {
        ClaimFacts {
            holder: Holder {
                id: RecordId::from_bytes([id; 32]),
                owner: Owner::unique(),
                fence: 7,
            },
            fingerprint: Fingerprint::from_bytes([fingerprint; 32]),
            number,
        }
    }

    fn attempt(id: u8, fingerprint: u8, number: u32) -> Attempt {
        Attempt::claim(&mut Extensions::new(), claimed(id, fingerprint, number))
    }

    #[test]
    fn a_derived_key_belongs_to_record_request_and_label() {
        let key = attempt(1, 2, 1).derive_key("charge");
        assert_eq!(attempt(1, 2, 9).derive_key("charge"), key);
        assert_ne!(attempt(3, 2, 1).derive_key("charge"), key);
        assert_ne!(attempt(1, 3, 1).derive_key("charge"), key);
        assert_ne!(attempt(1, 2, 1).derive_key("receipt"), key);
    }

    /// Other services remember these keys: a change takes a new version tag and a note.
    #[test]
    fn golden() {
        assert_eq!(
            attempt(1, 2, 1).derive_key("charge"),
            "0b42ee90d262d77dbfcd99eb7d05396894e23432cf29241dddb3800604db3bfe"
        );
    }

    /// Every extractor of one request has the same attempt, also one that is cloned before the claim.
    #[test]
    fn an_attempt_is_filled_when_its_key_is_claimed() {
        let mut extensions = Extensions::new();
        let early = Attempt::of(&mut extensions);
        assert_eq!((early.number(), early.fence()), (1, None));
        let unkeyed = early.derive_key("charge");
        assert_eq!(Attempt::of(&mut extensions).derive_key("charge"), unkeyed);
        Attempt::claim(&mut extensions, claimed(1, 2, 3));
        assert_eq!((early.number(), early.fence()), (3, Some(7)));
        let late = Attempt::of(&mut extensions);
        assert_eq!(late.derive_key("charge"), early.derive_key("charge"));
        early.lose();
        assert!(late.is_lost());
    }

    #[test]
    fn a_nested_attempt_shares_the_outer_one_until_it_is_claimed() {
        let mut extensions = Extensions::new();
        let outer = Attempt::claim(&mut extensions, claimed(1, 2, 3));
        let nested = Attempt::of(&mut extensions);
        assert_eq!(nested.record_id(), outer.record_id());
        Attempt::claim(&mut extensions, claimed(4, 5, 6));
        assert_eq!((nested.number(), outer.number()), (6, 3));
        assert_ne!(nested.derive_key("charge"), outer.derive_key("charge"));
        nested.lose();
        assert!(nested.is_lost() && !outer.is_lost());
    }

    /// A batch endpoint may clone a request, extensions and all.
    #[test]
    fn requests_that_share_their_extensions_have_attempts_of_their_own() {
        let mut one = Extensions::new();
        Attempt::of(&mut one);
        let mut other = one.clone();
        let one = Attempt::claim(&mut one, claimed(1, 2, 3));
        let other = Attempt::claim(&mut other, claimed(4, 5, 6));
        assert_eq!((one.number(), other.number()), (3, 6));
        assert_eq!(other.record_id(), Some(RecordId::from_bytes([4; 32])));
    }
}
