//! The store under test, and helpers that every rule needs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::handles::Handles;
use super::violation::{Under, Violation, broken, ensure, same, settled};
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::store::{Claim, Claimed, Entry, Holder, OnUnknown, Owner, Record, Settled, Store};

/// Longer than the suite runs.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// A store may keep its deadlines in whole milliseconds.
pub(super) const RESOLUTION: Duration = Duration::from_millis(2);

pub(super) const FIRST: Fingerprint = Fingerprint::from_bytes([1; 32]);
pub(super) const OTHER: Fingerprint = Fingerprint::from_bytes([2; 32]);

/// Waits until the store's clock has moved by a duration.
pub(super) type Pause = dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// The store under test, in the check of one rule.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) store: Arc<dyn Store>,
    pub(super) tick: Duration,
    pause: Arc<Pause>,
    run: Owner,
    next: Arc<AtomicU64>,
}

/// A claim that was won.
#[derive(Clone, Copy, Debug)]
pub(super) struct Won {
    pub(super) holder: Holder,
    pub(super) attempt: u32,
    pub(super) lease: Running,
}

/// A duration that started at some moment during a transition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    time: Duration,
    asked_at: Instant,
    done_at: Instant,
}

impl Running {
    /// The duration that starts when this one ends.
    pub(super) fn followed_by(&self, time: Duration) -> Self {
        Self {
            time,
            asked_at: self.asked_at + self.time,
            done_at: self.done_at + self.time,
        }
    }

    /// Whether the duration is certainly over at this time.
    pub(super) fn is_over(&self, at: Instant) -> bool {
        at >= self.done_at + self.time + RESOLUTION
    }

    /// Whether the duration may be over now. A store may store whole milliseconds.
    pub(super) fn may_be_over(&self) -> bool {
        Instant::now() + RESOLUTION >= self.asked_at + self.time
    }

    /// Checks the remaining time that a store reported. `looked_at` is when the store was asked;
    /// its response has just arrived.
    pub(super) fn has_left(
        &self,
        rule: u8,
        what: &str,
        left: Duration,
        looked_at: Instant,
    ) -> Result<(), Violation> {
        let least = (self.asked_at + self.time)
            .saturating_duration_since(Instant::now())
            .saturating_sub(RESOLUTION);
        self.has_left_at_least(rule, what, left, looked_at, least)
    }

    /// Checks the remaining time of a record. A cache counts from before it asked the backing
    /// store, so it may report less; only much less is wrong.
    pub(super) fn expires_in(
        &self,
        rule: u8,
        left: Duration,
        looked_at: Instant,
    ) -> Result<(), Violation> {
        let least = (self.asked_at + self.time).saturating_duration_since(Instant::now()) / 2;
        self.has_left_at_least(rule, "a record", left, looked_at, least)
    }

    fn has_left_at_least(
        &self,
        rule: u8,
        what: &str,
        left: Duration,
        looked_at: Instant,
        least: Duration,
    ) -> Result<(), Violation> {
        let most = (self.done_at + self.time).saturating_duration_since(looked_at) + RESOLUTION;
        ensure(rule, (least..=most).contains(&left), || {
            let time = self.time;
            format!(
                "{what} of {time:?} is reported to have {left:?} left, not {least:?} to {most:?}"
            )
        })
    }
}

impl Subject {
    pub(super) fn new(handles: &Handles, tick: Duration, pause: Arc<Pause>) -> Self {
        Self {
            store: handles.either(),
            tick,
            pause,
            run: Owner::unique(),
            next: Arc::default(),
        }
    }

    /// The same subject through another handle.
    pub(super) fn by(&self, store: &Arc<dyn Store>) -> Self {
        Self {
            store: store.clone(),
            ..self.clone()
        }
    }

    /// An id without an entry.
    pub(super) fn id(&self) -> RecordId {
        let mut input = self.run.as_bytes().to_vec();
        input.extend_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        RecordId::from_bytes(Sha256::digest(&input).into())
    }

    pub(super) async fn pause(&self, time: Duration) {
        (self.pause)(time).await;
    }

    /// Pauses until `time`, counted from `since`, is certainly over.
    pub(super) async fn pass(&self, since: Instant, time: Duration) {
        let until = since + time + RESOLUTION;
        while Instant::now() < until {
            self.pause(until - Instant::now()).await;
        }
    }

    /// Pauses until `running` is certainly over.
    pub(super) async fn pass_by(&self, running: Running) {
        self.pass(running.done_at, running.time).await;
    }

    /// Claims, and expects to win.
    pub(super) async fn win(&self, rule: u8, claim: Claim) -> Result<Won, Violation> {
        let (id, owner) = (claim.id, claim.owner);
        let (claimed, lease) = timed(claim.lease, || self.store.claim(claim)).await;
        match claimed.under(rule)? {
            Claimed::Fresh { fence, attempt } => Ok(Won {
                holder: Holder { id, owner, fence },
                attempt,
                lease,
            }),
            other => broken(rule, format!("a claim that must win got {other:?}")),
        }
    }

    /// Wins a claim on a new id, with a lease that is longer than the suite runs.
    pub(super) async fn hold(&self, rule: u8) -> Result<Won, Violation> {
        self.win(rule, claim(self.id(), LONG)).await
    }

    /// Wins a claim on a new id, and leaves its outcome unknown.
    pub(super) async fn lapse(&self, rule: u8) -> Result<Won, Violation> {
        let won = self.hold(rule).await?;
        settled(rule, Settled::Done, self.store.abandon(won.holder).await)?;
        Ok(won)
    }

    /// The record that a claim returns.
    pub(super) async fn replay(&self, rule: u8, id: RecordId) -> Result<Record, Violation> {
        match self.store.claim(claim(id, LONG)).await.under(rule)? {
            Claimed::Recorded { record, .. } => Ok(record),
            other => broken(rule, format!("a claim on a finished record got {other:?}")),
        }
    }

    /// Abandons the holder's claim, which is then remembered for `retention`.
    pub(super) async fn abandon(
        &self,
        rule: u8,
        holder: Holder,
        retention: Duration,
    ) -> Result<Running, Violation> {
        let (abandoned, retained) = timed(retention, || self.store.abandon(holder)).await;
        settled(rule, Settled::Done, abandoned)?;
        Ok(retained)
    }

    /// Completes the holder's claim with a `ttl`.
    pub(super) async fn complete(
        &self,
        rule: u8,
        holder: Holder,
        record: Record,
        ttl: Duration,
    ) -> Result<Running, Violation> {
        let (completed, lives) = timed(ttl, || self.store.complete(holder, record, ttl)).await;
        settled(rule, Settled::Done, completed)?;
        Ok(lives)
    }

    /// Expects that a rival and an operator see the claim of `won` in flight.
    pub(super) async fn is_in_flight(&self, rule: u8, won: Won) -> Result<(), Violation> {
        let looked_at = Instant::now();
        match self
            .store
            .claim(claim(won.holder.id, LONG))
            .await
            .under(rule)?
        {
            Claimed::InFlight {
                fingerprint,
                lease_left,
                ..
            } => {
                same(rule, "the claim in flight", &FIRST, &fingerprint)?;
                won.lease.has_left(rule, "a lease", lease_left, looked_at)?;
            }
            other => return broken(rule, format!("a rival of a claim that holds got {other:?}")),
        }
        let looked_at = Instant::now();
        match self.entry(rule, won.holder.id).await? {
            Some(Entry::InFlight {
                fingerprint,
                fence,
                attempt,
                lease_left,
                ..
            }) => {
                same(rule, "look_up", &FIRST, &fingerprint)?;
                let expected = (won.holder.fence, won.attempt);
                same(rule, "look_up", &expected, &(fence, attempt))?;
                won.lease.has_left(rule, "a lease", lease_left, looked_at)
            }
            entry => broken(rule, format!("a claim that holds is shown as {entry:?}")),
        }
    }

    /// Expects that an operator sees the claim of `won` as unknown, unless its retention may be
    /// over.
    pub(super) async fn is_unknown(
        &self,
        rule: u8,
        won: Won,
        retained: Running,
    ) -> Result<(), Violation> {
        let looked_at = Instant::now();
        match self.entry(rule, won.holder.id).await? {
            Some(Entry::Unknown {
                fingerprint,
                fence,
                attempt,
                retained_for,
                ..
            }) => {
                same(rule, "look_up", &FIRST, &fingerprint)?;
                let expected = (won.holder.fence, won.attempt);
                same(rule, "look_up", &expected, &(fence, attempt))?;
                retained.has_left(rule, "a retention", retained_for, looked_at)
            }
            None if retained.may_be_over() => Ok(()),
            entry => broken(rule, format!("a lapsed claim is shown as {entry:?}")),
        }
    }

    /// Expects that an operator and a claim see the record, unless its `ttl` may be over.
    pub(super) async fn is_recorded(
        &self,
        rule: u8,
        id: RecordId,
        kept: &Record,
        lives: Running,
    ) -> Result<(), Violation> {
        let looked_at = Instant::now();
        match self.entry(rule, id).await? {
            Some(Entry::Recorded {
                record, expires_in, ..
            }) => {
                same(rule, "look_up", kept, &record)?;
                lives.expires_in(rule, expires_in, looked_at)?;
            }
            None if lives.may_be_over() => return Ok(()),
            entry => return broken(rule, format!("a record is shown as {entry:?}")),
        }
        for claim in [claim(id, LONG), other(id), holding(other(id))] {
            let looked_at = Instant::now();
            match self.store.claim(claim).await.under(rule)? {
                Claimed::Recorded { record, expires_in } => {
                    same(rule, "a replay", kept, &record)?;
                    lives.expires_in(rule, expires_in, looked_at)?;
                }
                Claimed::Fresh { .. } if lives.may_be_over() => return Ok(()),
                other => return broken(rule, format!("a claim on a record got {other:?}")),
            }
        }
        Ok(())
    }

    /// Expects that an operator sees no entry under the id.
    pub(super) async fn is_gone(
        &self,
        rule: u8,
        id: RecordId,
        what: &str,
    ) -> Result<(), Violation> {
        let entry = self.entry(rule, id).await?;
        ensure(rule, entry.is_none(), || {
            format!("{what} is shown as {entry:?}")
        })
    }

    /// Expects that `forget` finds no entry under an id that nobody has read since.
    pub(super) async fn is_forgotten(
        &self,
        rule: u8,
        id: RecordId,
        what: &str,
    ) -> Result<(), Violation> {
        let was_there = self.store.forget(id).await.under(rule)?;
        ensure(rule, !was_there, || format!("{what} was found by `forget`"))
    }

    pub(super) async fn entry(&self, rule: u8, id: RecordId) -> Result<Option<Entry>, Violation> {
        self.store.look_up(id).await.under(rule)
    }
}

/// Awaits a transition that starts a duration of `time`.
///
/// The clock is read before the transition is called, because a store may do all its work in the
/// call and return a ready future.
pub(super) async fn timed<T, F>(time: Duration, transition: impl FnOnce() -> F) -> (T, Running)
where
    F: Future<Output = T>,
{
    let asked_at = Instant::now();
    let output = transition().await;
    let running = Running {
        time,
        asked_at,
        done_at: Instant::now(),
    };
    (output, running)
}

/// A claim by a new owner, with a retention that is longer than the suite runs.
pub(super) fn claim(id: RecordId, lease: Duration) -> Claim {
    Claim::new(id, FIRST, lease, LONG)
}

/// A claim that lapses after `lease`, and is forgotten after another `retention`.
pub(super) fn forgotten_after(id: RecordId, lease: Duration, retention: Duration) -> Claim {
    Claim::new(id, FIRST, lease, retention)
}

/// A claim for a different request.
pub(super) fn other(id: RecordId) -> Claim {
    Claim::new(id, OTHER, LONG, LONG)
}

/// A claim that must not rerun a lapsed claim.
pub(super) fn holding(mut claim: Claim) -> Claim {
    claim.on_unknown = OnUnknown::Hold;
    claim
}

/// A record that contains its own name.
pub(super) fn record(name: &str) -> Record {
    let mut headers = HeaderMap::new();
    headers.insert("x-name", name.parse().expect("a plain word"));
    Record::answer(FIRST, StatusCode::CREATED, &headers, name.as_bytes()).expect("small")
}
