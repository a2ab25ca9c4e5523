//! Rule 7: the fence grows with every attempt at one id.

use super::super::subject::{LONG, Subject, Won, claim, forgotten_after, record};
use super::super::violation::{Under, Violation, ensure, same, settled};
use crate::store::Settled;

const RULE: u8 = 7;

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
    grown(subject, last, "being forgotten").await?;
    Ok(())
}

async fn grown(subject: &Subject, last: Won, after: &str) -> Result<Won, Violation> {
    let next = subject.win(RULE, claim(last.holder.id, LONG)).await?;
    let (before, now) = (last.holder.fence, next.holder.fence);
    ensure(RULE, now > before, || {
        format!("after {after} the fence went from {before} to {now}")
    })?;
    Ok(next)
}
