//! Rule 1: of any number of concurrent claims, one wins.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::time::Instant;

use super::super::subject::{FIRST, LONG, OTHER, Subject, claim, record};
use super::super::violation::{Under, Violation, broken, same, settled};
use crate::request::record_id::RecordId;
use crate::store::{Claimed, Settled};

const RULE: u8 = 1;
const RUNNERS: usize = 64;

/// The result of the next claim after each way to end a claim.
pub(super) async fn alone(subject: &Subject) -> Result<(), Violation> {
    let won = subject.hold(RULE).await?;
    let id = won.holder.id;
    same(RULE, "the number of a first attempt", &1, &won.attempt)?;

    // A losing claim changes nothing, whatever its fingerprint is.
    let mut other = claim(id, LONG);
    other.fingerprint = OTHER;
    for loser in [claim(id, LONG), other, claim(id, Duration::ZERO)] {
        let looked_at = Instant::now();
        match subject.store.claim(loser).await.under(RULE)? {
            Claimed::InFlight {
                fingerprint,
                lease_left,
                ..
            } => {
                same(RULE, "the claim in flight", &FIRST, &fingerprint)?;
                won.lease.has_left(RULE, "a lease", lease_left, looked_at)?;
            }
            other => return broken(RULE, format!("a claim on an id in flight got {other:?}")),
        }
    }
    let released = subject.store.release(won.holder).await;
    settled(RULE, Settled::Done, released)?;
    let mut other = claim(id, LONG);
    other.fingerprint = OTHER;
    let won = subject.win(RULE, other).await?;
    same(RULE, "the attempt after a release", &1, &won.attempt)?;
    let kept = record("alone");
    let completed = subject.store.complete(won.holder, kept.clone(), LONG).await;
    settled(RULE, Settled::Done, completed)?;
    same(RULE, "a replay", &kept, &subject.replay(RULE, id).await?)
}

pub(super) async fn many(subject: &Subject, rounds: usize) -> Result<(), Violation> {
    for _ in 0..rounds {
        let winner = race(subject, subject.id()).await?;
        same(RULE, "the attempt of a first claim", &1, &winner)?;
    }
    for _ in 0..rounds {
        let lapsed = subject.lapse(RULE).await?;
        let winner = race(subject, lapsed.holder.id).await?;
        same(RULE, "the attempt of a takeover", &2, &winner)?;
    }
    for _ in 0..rounds {
        let won = subject.hold(RULE).await?;
        let released = subject.store.release(won.holder).await;
        settled(RULE, Settled::Done, released)?;
        race(subject, won.holder.id).await?;
    }
    expired(subject, rounds).await?;
    for _ in 0..rounds {
        against_completion(subject).await?;
    }
    Ok(())
}

/// Races for ids whose records have expired, before anything has deleted the records.
async fn expired(subject: &Subject, rounds: usize) -> Result<(), Violation> {
    let mut ids = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let won = subject.hold(RULE).await?;
        let kept = record("expired");
        let completed = subject.store.complete(won.holder, kept, subject.tick).await;
        settled(RULE, Settled::Done, completed)?;
        ids.push(won.holder.id);
    }
    subject.pass(Instant::now(), subject.tick).await;
    for id in ids {
        let winner = race(subject, id).await?;
        same(RULE, "the attempt after an expiry", &1, &winner)?;
    }
    Ok(())
}

/// Lets all runners claim at once, and returns the winner's attempt.
async fn race(subject: &Subject, id: RecordId) -> Result<u32, Violation> {
    let start = Arc::new(Barrier::new(RUNNERS));
    let runners: Vec<_> = (0..RUNNERS)
        .map(|_| {
            let (start, store) = (start.clone(), subject.store.clone());
            tokio::spawn(async move {
                start.wait().await;
                store.claim(claim(id, LONG)).await
            })
        })
        .collect();
    let mut winners = Vec::new();
    for runner in runners {
        let Ok(claimed) = runner.await else {
            return broken(RULE, "a claim panicked");
        };
        match claimed.under(RULE)? {
            Claimed::Fresh { attempt, .. } => winners.push(attempt),
            Claimed::InFlight { .. } => {}
            other => return broken(RULE, format!("a claim in a race got {other:?}")),
        }
    }
    match winners[..] {
        [attempt] => Ok(attempt),
        _ => broken(
            RULE,
            format!(
                "{} of {RUNNERS} concurrent claims got `Fresh`",
                winners.len()
            ),
        ),
    }
}

/// While the holder completes, a claim is in flight or returns the record; the id is never free.
async fn against_completion(subject: &Subject) -> Result<(), Violation> {
    let won = subject.hold(RULE).await?;
    let kept = record("winner");
    let start = Arc::new(Barrier::new(8));
    let runners: Vec<_> = (1..8)
        .map(|_| {
            let (start, store) = (start.clone(), subject.store.clone());
            tokio::spawn(async move {
                start.wait().await;
                store.claim(claim(won.holder.id, LONG)).await
            })
        })
        .collect();
    start.wait().await;
    let completed = subject.store.complete(won.holder, kept.clone(), LONG).await;
    settled(RULE, Settled::Done, completed)?;
    for runner in runners {
        let Ok(claimed) = runner.await else {
            return broken(RULE, "a claim panicked");
        };
        match claimed.under(RULE)? {
            Claimed::InFlight { .. } => {}
            Claimed::Recorded { record, .. } if record == kept => {}
            other => {
                return broken(
                    RULE,
                    format!("a claim during the holder's `complete` got {other:?}"),
                );
            }
        }
    }
    Ok(())
}
