//! The extractor that describes the attempt to its handler.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use http::Extensions;
use http::request::Parts;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::attempt::commit_error::CommitError;
use crate::attempt::commits::Commits;
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::store::{Holder, Owner};

/// Extractor that tells a handler which attempt it is.
///
/// A handler may run again under one key: after a crash, after a panic, or because its response
/// was not recorded. When the handler calls other services, they must recognize the repeated call.
/// [`derive_key`](Self::derive_key) derives the keys for these calls:
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum_idem::Attempt;
///
/// async fn charge(attempt: Attempt) {
///     let charge_key = attempt.derive_key("charge");
///     let receipt_key = attempt.derive_key("receipt");
///     assert_ne!(charge_key, receipt_key);
///     // Send each key as the `Idempotency-Key` of one call.
/// }
/// # let _ = charge;
/// ```
///
/// The engine sets the values of the attempt when it claims the key. An extractor that reads them earlier sees the
/// values of a request without a key.
///
/// When a handler passes its request to another annotated handler, the outer handler keeps its own attempt. The
/// inner handler gets a separate attempt when its key is claimed. Before that, and without a key,
/// the inner handler shares the attempt of the outer handler.
///
/// Requests with cloned extensions, such as the items of a batch, have separate attempts.
#[derive(Clone)]
pub struct Attempt(Arc<Shared>);

struct Shared {
    claimed: OnceLock<Claimed>,
    /// The attempt of the handler that passed the request to this handler.
    outer: Option<Attempt>,
    /// Replaces the record id in a request without a record.
    unkeyed: OnceLock<Owner>,
    is_lost: AtomicBool,
    /// Whether another attempt has taken over.
    is_overtaken: AtomicBool,
    lost: Notify,
}

struct Claimed {
    facts: ClaimFacts,
    /// How the handler can commit its response. `None` in unit tests of handlers.
    commits: Option<Commits>,
}

/// The attempt in the extensions of a request.
///
/// Each clone of unclaimed extensions gets a separate attempt. A batch endpoint may clone the
/// extensions of its own request for each item, and items may extract their attempts early. If the
/// clones shared one attempt, the first claim would fill it for all items, and other items would
/// derive the keys of the first item.
struct Slot(Attempt);

impl Clone for Slot {
    fn clone(&self) -> Self {
        let Attempt(shared) = &self.0;
        if shared.claimed.get().is_some() {
            return Self(self.0.clone());
        }
        Self(Attempt::within(shared.outer.clone()))
    }
}

/// The facts about an attempt that are known after its key is claimed.
#[derive(Clone, Copy)]
pub(crate) struct ClaimFacts {
    pub(crate) holder: Holder,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) number: u32,
}

impl Attempt {
    /// Returns the number of this attempt: 1 for the first attempt at a key. The number grows by
    /// one when an attempt takes over from an attempt that was interrupted.
    ///
    /// Returns 1 for a request without a key.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.claimed().map_or(1, |claimed| claimed.number)
    }

    /// Returns the fence, which grows with every attempt at one key. A resource that remembers the
    /// highest fence can refuse an attempt that was overtaken. Returns `None` for a request without
    /// a key.
    #[must_use]
    pub fn fence(&self) -> Option<u64> {
        self.claimed().map(|claimed| claimed.holder.fence)
    }

    /// Returns the id of the record, which an operator can look up. Returns `None` for a request
    /// without a key.
    #[must_use]
    pub fn record_id(&self) -> Option<RecordId> {
        self.claimed().map(|claimed| claimed.holder.id)
    }

    /// Derives a key for a call that the handler makes, as 64 hexadecimal digits.
    ///
    /// The derived key is the same in every attempt at one request. It differs between records,
    /// requests and labels. A corrected request under a released key derives new keys. Each request
    /// without a key derives new keys, because nobody can retry it.
    ///
    /// The `fingerprint` of the endpoint decides which requests differ. With `fingerprint = none`,
    /// a corrected body derives the same keys. With `fingerprint = json("/…")`, a change outside
    /// the named members derives the same keys too.
    ///
    /// The other service must not remember a derived key for longer than the `ttl` of the endpoint.
    /// After the `ttl`, an equal request under the same key is a new operation that derives the
    /// same keys. A service that still remembers them returns its old response.
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

    /// Returns whether another attempt may run from now on.
    ///
    /// The method returns `true` when another attempt has taken over, because the lease of this attempt could not
    /// be renewed in time. The response of this attempt is then not recorded. Its client gets the recorded
    /// response of the attempt that has taken over, or 409 `idempotency_key_in_flight` while that attempt
    /// runs. The handler decides whether to stop.
    ///
    /// It also returns `true` when this attempt has run for as long as
    /// [`max_run`](crate::IdempotencyBuilder::max_run) allows. The handler is dropped then, and tasks that
    /// the handler spawned should stop.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.effective().0.is_lost.load(Ordering::Acquire)
    }

    /// Waits until [`is_lost`](Self::is_lost) returns `true`. Cancel-safe.
    pub async fn lost(&self) {
        loop {
            // Created before the flag is read, so that no notification is missed in between.
            let attempt = self.effective();
            let lost = attempt.0.lost.notified();
            if attempt.0.is_lost.load(Ordering::Acquire) {
                return;
            }
            lost.await;
        }
    }

    /// Returns the attempt that every extractor of this request gets.
    ///
    /// An attempt that is already claimed belongs to a handler that passes its request on, or that
    /// extracts its own attempt. Then a new attempt is returned, which shares the existing attempt
    /// until the new attempt is claimed.
    fn of(extensions: &mut Extensions) -> Self {
        let outer = match extensions.get::<Slot>() {
            Some(Slot(attempt)) if attempt.0.claimed.get().is_none() => return attempt.clone(),
            outer => outer.map(|Slot(outer)| outer.clone()),
        };
        let attempt = Self::within(outer);
        extensions.insert(Slot(attempt.clone()));
        attempt
    }

    /// Creates an attempt whose key is not claimed yet.
    fn within(outer: Option<Self>) -> Self {
        Self::with(OnceLock::new(), outer)
    }

    fn with(claimed: OnceLock<Claimed>, outer: Option<Self>) -> Self {
        Self(Arc::new(Shared {
            claimed,
            outer,
            unkeyed: OnceLock::new(),
            is_lost: AtomicBool::new(false),
            is_overtaken: AtomicBool::new(false),
            lost: Notify::new(),
        }))
    }

    /// Fills in the attempt of a request whose key was claimed. With `commits`, the handler can commit its
    /// response.
    pub(crate) fn claim(
        extensions: &mut Extensions,
        facts: ClaimFacts,
        commits: Option<Commits>,
    ) -> Self {
        let claimed = Claimed { facts, commits };
        let outer = match extensions.get::<Slot>() {
            Some(Slot(attempt)) if attempt.0.claimed.get().is_none() => {
                // Cannot fail: nobody else has these extensions.
                let _ = attempt.0.claimed.set(claimed);
                return attempt.clone();
            }
            outer => outer.map(|Slot(outer)| outer.clone()),
        };
        let attempt = Self::with(OnceLock::from(claimed), outer);
        extensions.insert(Slot(attempt.clone()));
        attempt
    }

    /// Returns this attempt if it is claimed, and otherwise the outer attempt that it shares.
    fn effective(&self) -> &Self {
        match &self.0.outer {
            Some(outer) if self.0.claimed.get().is_none() => outer.effective(),
            _ => self,
        }
    }

    fn claimed(&self) -> Option<&ClaimFacts> {
        let claimed = self.effective().0.claimed.get();
        claimed.map(|claimed| &claimed.facts)
    }

    /// Another attempt has taken over.
    pub(crate) fn overtake(&self) {
        self.0.is_overtaken.store(true, Ordering::Release);
        self.lose();
    }

    pub(crate) fn is_overtaken(&self) -> bool {
        self.0.is_overtaken.load(Ordering::Acquire)
    }

    /// Returns how the handler can commit its response. `None` without a claim.
    ///
    /// An unclaimed attempt within a claimed one is refused: its handler may be an inner handler without a key,
    /// whose response is not the response of the outer request.
    pub(super) fn commits(&self) -> Result<Option<&Commits>, CommitError> {
        match self.0.claimed.get() {
            Some(claimed) => Ok(claimed.commits.as_ref()),
            None if self.claimed().is_some() => Err(CommitError::NotOwn),
            None => Ok(None),
        }
    }

    /// From now on, another attempt may run.
    pub(crate) fn lose(&self) {
        self.0.is_lost.store(true, Ordering::Release);
        self.0.lost.notify_waiters();
    }
}

/// For unit tests of handlers, which call a handler without a request.
impl Attempt {
    /// Returns the attempt with this number at a record, as a request with a claimed key has it.
    ///
    /// Its fence is its number. Attempts at the same record derive the same keys, as the attempts at one
    /// request do. The attempt holds no claim, so it is never lost.
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use axum_idem::{Attempt, RecordId};
    ///
    /// async fn charge(attempt: Attempt) -> String {
    ///     attempt.derive_key("charge")
    /// }
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let record = RecordId::from_bytes([7; 32]);
    /// let first = charge(Attempt::new(record, 1)).await;
    /// assert_eq!(charge(Attempt::new(record, 2)).await, first);
    /// # });
    /// ```
    #[must_use]
    pub fn new(record_id: RecordId, number: u32) -> Self {
        let holder = Holder {
            id: record_id,
            owner: Owner::unique(),
            fence: number.into(),
        };
        let facts = ClaimFacts {
            holder,
            fingerprint: Fingerprint::from_bytes([0; 32]),
            number,
        };
        Self::claim(&mut Extensions::new(), facts, None)
    }
}

/// The attempt of a request without a key.
impl Default for Attempt {
    fn default() -> Self {
        Self::within(None)
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("number", &self.number())
            .field("fence", &self.fence())
            // The whole id contains the digest of the scope.
            .field("record", &self.record_id().map(|id| id.short()))
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
        Attempt::claim(
            &mut Extensions::new(),
            claimed(id, fingerprint, number),
            None,
        )
    }

    /// An inner handler without a key must not record its response as that of the outer request.
    #[test]
    fn an_unclaimed_attempt_within_a_claimed_one_commits_nothing() {
        let inner = Attempt::within(Some(attempt(1, 2, 1)));
        assert!(matches!(inner.commits(), Err(CommitError::NotOwn)));
        let unprotected = Attempt::within(None);
        assert!(matches!(unprotected.commits(), Ok(None)));
    }

    #[test]
    fn a_derived_key_depends_on_record_request_and_label() {
        let key = attempt(1, 2, 1).derive_key("charge");
        assert_eq!(attempt(1, 2, 9).derive_key("charge"), key);
        assert_ne!(attempt(3, 2, 1).derive_key("charge"), key);
        assert_ne!(attempt(1, 3, 1).derive_key("charge"), key);
        assert_ne!(attempt(1, 2, 1).derive_key("receipt"), key);
    }

    /// Other services remember these keys. A change of the derivation needs a new version tag and a
    /// changelog entry.
    #[test]
    fn the_derivation_of_keys_never_changes() {
        assert_eq!(
            attempt(1, 2, 1).derive_key("charge"),
            "0b42ee90d262d77dbfcd99eb7d05396894e23432cf29241dddb3800604db3bfe"
        );
    }

    /// Every extractor of one request gets the same attempt, also an attempt that was cloned before
    /// the claim.
    #[test]
    fn an_attempt_is_filled_when_its_key_is_claimed() {
        let mut extensions = Extensions::new();
        let early = Attempt::of(&mut extensions);
        assert_eq!((early.number(), early.fence()), (1, None));
        let unkeyed = early.derive_key("charge");
        assert_eq!(Attempt::of(&mut extensions).derive_key("charge"), unkeyed);
        Attempt::claim(&mut extensions, claimed(1, 2, 3), None);
        assert_eq!((early.number(), early.fence()), (3, Some(7)));
        let late = Attempt::of(&mut extensions);
        assert_eq!(late.derive_key("charge"), early.derive_key("charge"));
        early.lose();
        assert!(late.is_lost());
    }

    #[test]
    fn a_constructed_attempt_has_the_values_of_a_claimed_key() {
        let id = RecordId::from_bytes([1; 32]);
        let attempt = Attempt::new(id, 2);
        let facts = (attempt.number(), attempt.fence(), attempt.record_id());
        assert_eq!(facts, (2, Some(2), Some(id)));
        assert!(!attempt.is_lost());
        let unkeyed = [Attempt::default(), Attempt::default()];
        assert_eq!((unkeyed[0].number(), unkeyed[0].record_id()), (1, None));
        let [one, other] = unkeyed.map(|attempt| attempt.derive_key("charge"));
        assert_ne!(one, other);
    }

    #[test]
    fn a_nested_attempt_shares_the_outer_one_until_it_is_claimed() {
        let mut extensions = Extensions::new();
        let outer = Attempt::claim(&mut extensions, claimed(1, 2, 3), None);
        let nested = Attempt::of(&mut extensions);
        assert_eq!(nested.record_id(), outer.record_id());
        Attempt::claim(&mut extensions, claimed(4, 5, 6), None);
        assert_eq!((nested.number(), outer.number()), (6, 3));
        assert_ne!(nested.derive_key("charge"), outer.derive_key("charge"));
        nested.lose();
        assert!(nested.is_lost() && !outer.is_lost());
    }

    /// A batch endpoint may clone a request together with its extensions.
    #[test]
    fn requests_that_share_their_extensions_have_separate_attempts() {
        let mut of_batch = Extensions::new();
        let batch = Attempt::of(&mut of_batch);
        let (mut one, mut other) = (of_batch.clone(), of_batch.clone());
        let early = [&mut one, &mut other].map(Attempt::of);
        Attempt::claim(&mut one, claimed(1, 2, 3), None);
        assert_eq!(
            early[1].record_id(),
            None,
            "the attempt of the other request"
        );
        Attempt::claim(&mut other, claimed(4, 5, 6), None);
        let numbers = [&early[0], &early[1], &batch].map(Attempt::number);
        assert_eq!(numbers, [3, 6, 1]);
        assert_eq!(early[1].record_id(), Some(RecordId::from_bytes([4; 32])));
    }
}
