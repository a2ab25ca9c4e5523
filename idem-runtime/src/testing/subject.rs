//! The store under test, with what every rule needs.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Pause, Violation};
use crate::fingerprint::Fingerprint;
use crate::record_id::RecordId;
use crate::store::{
    Claim, Claimed, Entry, Holder, OnUnknown, Owner, Record, Settled, Store, StoreError,
};

/// Longer than the suite runs.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// A store may keep its deadlines in whole milliseconds.
pub(super) const RESOLUTION: Duration = Duration::from_millis(2);

pub(super) const FIRST: Fingerprint = Fingerprint::from_bytes([1; 32]);
pub(super) const OTHER: Fingerprint = Fingerprint::from_bytes([2; 32]);

/// The store under test, looked at under one rule.
pub(super) struct Subject {
    pub(super) store: Arc<dyn Store>,
    pub(super) tick: Duration,
    pause: Box<Pause>,
    run: Owner,
    next: AtomicU64,
}

/// What a claim won.
#[derive(Clone, Copy, Debug)]
pub(super) struct Won {
    pub(super) holder: Holder,
    pub(super) attempt: u32,
}

impl Subject {
    pub(super) fn new(store: Arc<dyn Store>, tick: Duration, pause: Box<Pause>) -> Self {
        Self {
            store,
            tick,
            pause,
            run: Owner::unique(),
            next: AtomicU64::new(0),
        }
    }

    /// An id that nothing stands under.
    pub(super) fn id(&self) -> RecordId {
        let mut input = self.run.as_bytes().to_vec();
        input.extend_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        RecordId::from_bytes(Sha256::digest(&input).into())
    }

    pub(super) async fn pause(&self, time: Duration) {
        (self.pause)(time).await;
    }

    /// Pauses until what was given `time` at `since` is certainly over.
    pub(super) async fn pass(&self, since: Instant, time: Duration) {
        let until = since + time + RESOLUTION;
        while Instant::now() < until {
            self.pause(until - Instant::now()).await;
        }
    }

    /// Claims, and expects to win.
    pub(super) async fn win(&self, rule: u8, claim: Claim) -> Result<Won, Violation> {
        let (id, owner) = (claim.id, claim.owner);
        match self.store.claim(claim).await.under(rule)? {
            Claimed::Fresh { fence, attempt } => Ok(Won {
                holder: Holder { id, owner, fence },
                attempt,
            }),
            other => broken(rule, format!("a claim that is free to win got {other:?}")),
        }
    }

    /// Wins a new id, with a lease that outlives the suite.
    pub(super) async fn hold(&self, rule: u8) -> Result<Won, Violation> {
        self.win(rule, claim(self.id(), LONG)).await
    }

    /// Wins a new id, and leaves its outcome unknown.
    pub(super) async fn lapse(&self, rule: u8) -> Result<Won, Violation> {
        let won = self.hold(rule).await?;
        settled(rule, Settled::Done, self.store.abandon(won.holder).await)?;
        Ok(won)
    }

    /// The record that a claim finds.
    pub(super) async fn replay(&self, rule: u8, id: RecordId) -> Result<Record, Violation> {
        match self.store.claim(claim(id, LONG)).await.under(rule)? {
            Claimed::Recorded { record, .. } => Ok(record),
            other => broken(rule, format!("a claim on a finished record got {other:?}")),
        }
    }

    pub(super) async fn entry(&self, rule: u8, id: RecordId) -> Result<Option<Entry>, Violation> {
        self.store.look_up(id).await.under(rule)
    }
}

/// A claim by a new owner, with a retention that outlives the suite.
pub(super) fn claim(id: RecordId, lease: Duration) -> Claim {
    Claim::new(id, FIRST, lease, LONG)
}

/// A claim that is not to rerun what lapsed.
pub(super) fn holding(mut claim: Claim) -> Claim {
    claim.on_unknown = OnUnknown::Hold;
    claim
}

/// A record that says which one it is.
pub(super) fn record(name: &str) -> Record {
    let mut headers = HeaderMap::new();
    headers.insert("x-name", name.parse().expect("a plain word"));
    Record::answer(FIRST, StatusCode::CREATED, &headers, name.as_bytes()).expect("small")
}

/// An answer of the store, looked at under a rule.
pub(super) trait Under<T> {
    fn under(self, rule: u8) -> Result<T, Violation>;
}

impl<T> Under<T> for Result<T, StoreError> {
    fn under(self, rule: u8) -> Result<T, Violation> {
        self.map_err(|error| Violation {
            rule,
            what: format!("the store failed: {error:?}"),
        })
    }
}

pub(super) fn broken<T>(rule: u8, what: impl Into<String>) -> Result<T, Violation> {
    let what = what.into();
    Err(Violation { rule, what })
}

pub(super) fn ensure(
    rule: u8,
    holds: bool,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { broken(rule, what()) }
}

/// Whether a transition took effect, as it should or should not.
pub(super) fn settled(
    rule: u8,
    expected: Settled,
    answer: Result<Settled, StoreError>,
) -> Result<(), Violation> {
    same(rule, "a transition", &expected, &answer.under(rule)?)
}

pub(super) fn same<T: PartialEq + Debug>(
    rule: u8,
    what: &str,
    expected: &T,
    found: &T,
) -> Result<(), Violation> {
    ensure(rule, expected == found, || {
        format!("{what} gave {found:?} instead of {expected:?}")
    })
}
