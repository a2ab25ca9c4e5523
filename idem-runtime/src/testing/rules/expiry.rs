//! Rule 4: a record lives for its `ttl`, read or not.

use tokio::time::Instant;

use super::super::subject::{LONG, OTHER, RESOLUTION, Subject, claim, holding, record};
use super::super::violation::{Under, Violation, broken, ensure, same, settled};
use crate::store::{Claimed, Entry, Settled};

const RULE: u8 = 4;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    read_all_the_time(subject).await?;
    lived_twice(subject).await
}

/// A record is there for every request under its key, and its time runs.
pub(super) async fn another_request(subject: &Subject) -> Result<(), Violation> {
    let won = subject.hold(RULE).await?;
    let kept = record("first");
    let id = won.holder.id;
    let lives = subject
        .complete(RULE, won.holder, kept.clone(), LONG)
        .await?;
    subject.is_recorded(RULE, id, &kept, lives).await?;
    subject.pause(subject.tick / 4).await;
    // Less of its time is left, by whomever it is asked.
    subject.is_recorded(RULE, id, &kept, lives).await
}

/// Reads a record until it is gone: present before its end, absent after it, however often it was
/// read.
async fn read_all_the_time(subject: &Subject) -> Result<(), Violation> {
    let ttl = subject.tick;
    let won = subject.hold(RULE).await?;
    let id = won.holder.id;
    let asked_at = Instant::now();
    let completed = subject
        .store
        .complete(won.holder, record("short"), ttl)
        .await;
    settled(RULE, Settled::Done, completed)?;
    let done_at = Instant::now();
    let mut last = ttl + RESOLUTION;
    loop {
        let look_at = Instant::now();
        // Not a claim that could win: it looks on.
        let entry = subject.entry(RULE, id).await?;
        let Some(Entry::Recorded { expires_in, .. }) = entry else {
            ensure(RULE, entry.is_none(), || {
                format!("a record is shown as {entry:?}")
            })?;
            let early = Instant::now() + RESOLUTION < asked_at + ttl;
            ensure(RULE, !early, || {
                format!("a record is gone before its {ttl:?}")
            })?;
            break;
        };
        ensure(RULE, look_at < done_at + ttl + RESOLUTION, || {
            format!("a record is there after its {ttl:?}, with {expires_in:?} left")
        })?;
        ensure(RULE, expires_in <= last, || {
            format!("reading a record prolonged it from {last:?} to {expires_in:?}")
        })?;
        last = expires_in;
        // A claim reads it too, as long as it cannot be late and win.
        if Instant::now() + ttl / 2 < asked_at + ttl {
            match subject.store.claim(claim(id, LONG)).await.under(RULE)? {
                Claimed::Recorded { expires_in, .. } => {
                    ensure(RULE, expires_in <= ttl + RESOLUTION, || {
                        format!("{expires_in:?} are left of {ttl:?}")
                    })?;
                }
                // It took too long to be asked, and came after the end.
                Claimed::Fresh { .. } if Instant::now() + RESOLUTION >= asked_at + ttl => {
                    return Ok(());
                }
                other => return broken(RULE, format!("a claim on a record got {other:?}")),
            }
        }
        subject.pause(ttl / 16).await;
    }
    // With nothing there any more, it does not matter what had been.
    let mut other = holding(claim(id, LONG));
    other.fingerprint = OTHER;
    let won = subject.win(RULE, other).await?;
    same(RULE, "the attempt after an expiry", &1, &won.attempt)
}

/// Claimed, completed, expired; and all of it again, with another answer.
async fn lived_twice(subject: &Subject) -> Result<(), Violation> {
    let id = subject.id();
    for name in ["first", "second"] {
        let won = subject.win(RULE, claim(id, LONG)).await?;
        let asked_at = Instant::now();
        let completed = subject
            .store
            .complete(won.holder, record(name), subject.tick);
        settled(RULE, Settled::Done, completed.await)?;
        let done_at = Instant::now();
        match subject.entry(RULE, id).await? {
            Some(Entry::Recorded { record: found, .. }) => {
                same(RULE, "look_up", &record(name), &found)?;
            }
            entry => ensure(
                RULE,
                entry.is_none() && Instant::now() + RESOLUTION >= asked_at + subject.tick,
                || format!("a record is shown as {entry:?}"),
            )?,
        }
        subject.pass(done_at, subject.tick).await;
    }
    Ok(())
}
