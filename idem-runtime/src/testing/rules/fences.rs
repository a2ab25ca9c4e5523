//! Rule 7: the fence grows with every attempt at one id.

use super::super::subject::{LONG, Subject, Won, claim, forgotten_after, record};
use super::super::violation::{Under, Violation, ensure, same, settled};
use crate::store::{Settled, StoreError};

const RULE: u8 = 7;
/// How often the key changes hands quickly. A clock with coarse ticks would repeat a fence.
const ROUNDS: usize = 60;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    let mut last = subject.hold(RULE).await?;
    let id = last.holder.id;

    for attempt in 2..=4 {
        let abandoned = subject.store.abandon(last.holder).await;
        settled(RULE, Settled::Done, abandoned)?;
        last = grown(subject, last, "a takeover").await?;
        same(RULE, "the attempt of a takeover", &attempt, &last.attempt)?;
    }

    let released = subject.store.release(last.holder).await;
    settled(RULE, Settled::Done, released)?;
    last = grown(subject, last, "a release").await?;

    let kept = record("fenced");
    let lives = subject
        .complete(RULE, last.holder, kept, subject.tick)
        .await?;
    subject.pass_by(lives).await;
    last = grown(subject, last, "an expiry").await?;

    let released = subject.store.release(last.holder).await;
    settled(RULE, Settled::Done, released)?;
    let forgotten = forgotten_after(id, LONG, subject.tick);
    let won = subject.win(RULE, forgotten).await?;
    let retained = subject.abandon(RULE, won.holder, subject.tick).await?;
    subject.pass_by(retained).await;
    last = grown(subject, won, "a retention").await?;

    let was_there = subject.store.forget(id).await.under(RULE)?;
    same(RULE, "forget", &true, &was_there)?;
    last = grown(subject, last, "being forgotten").await?;

    // A store that keeps its fences in its entries loses them with the entries.
    let lives = subject
        .complete(RULE, last.holder, record("purged"), subject.tick)
        .await?;
    subject.pass_by(lives).await;
    purge(subject).await?;
    last = grown(subject, last, "a purge of its record").await?;
    let released = subject.store.release(last.holder).await;
    settled(RULE, Settled::Done, released)?;
    let forgotten = forgotten_after(id, LONG, subject.tick);
    let won = subject.win(RULE, forgotten).await?;
    let retained = subject.abandon(RULE, won.holder, subject.tick).await?;
    subject.pass_by(retained).await;
    purge(subject).await?;
    last = grown(subject, won, "a purge of its claim").await?;

    for round in 0..ROUNDS {
        last = if round % 3 == 0 {
            let was_there = subject.store.forget(id).await.under(RULE)?;
            same(RULE, "forget", &true, &was_there)?;
            purge(subject).await?;
            grown(subject, last, "being forgotten many times").await?
        } else {
            let abandoned = subject.store.abandon(last.holder).await;
            settled(RULE, Settled::Done, abandoned)?;
            grown(subject, last, "many takeovers").await?
        };
    }
    Ok(())
}

/// Removes the expired entries of a store whose engine does not remove them itself.
async fn purge(subject: &Subject) -> Result<(), Violation> {
    loop {
        match subject.store.remove_expired().await {
            Ok(0) | Err(StoreError::Unsupported) => return Ok(()),
            removed => removed.under(RULE)?,
        };
    }
}

async fn grown(subject: &Subject, last: Won, after: &str) -> Result<Won, Violation> {
    let next = subject.win(RULE, claim(last.holder.id, LONG)).await?;
    let (before, now) = (last.holder.fence, next.holder.fence);
    ensure(RULE, now > before, || {
        format!("after {after} the fence went from {before} to {now}")
    })?;
    Ok(next)
}
