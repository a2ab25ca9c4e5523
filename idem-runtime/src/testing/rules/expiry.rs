//! Rule 4: a record lives for its `ttl`, whether it is read or not.

use tokio::time::Instant;

use super::super::subject::{LONG, OTHER, RESOLUTION, Subject, claim, holding, record};
use super::super::violation::{Under, Violation, broken, ensure, same, settled};
use crate::store::{Claimed, Entry, Settled};

const RULE: u8 = 4;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    read_all_the_time(subject).await?;
    lived_twice(subject).await
}

/// Every request with the key sees the record, and the record's time continues to run.
pub(super) async fn another_request(subject: &Subject) -> Result<(), Violation> {
    let won = subject.hold(RULE).await?;
    let kept = record("first");
    let id = won.holder.id;
    let lives = subject
        .complete(RULE, won.holder, kept.clone(), LONG)
        .await?;
    subject.is_recorded(RULE, id, &kept, lives).await?;
    subject.pause(subject.tick / 4).await;
    // Now less of its time is left, for every caller.
    subject.is_recorded(RULE, id, &kept, lives).await
}

/// Reads a record until it is gone. The record must be present before its end and absent
/// afterwards, however often it was read.
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
        // Uses `look_up`, because a claim could win.
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
            format!("reading a record extended its time from {last:?} to {expires_in:?}")
        })?;
        last = expires_in;
        // A claim reads the record too, as long as the claim cannot be late and win.
        if Instant::now() + ttl / 2 < asked_at + ttl {
            match subject.store.claim(claim(id, LONG)).await.under(RULE)? {
                Claimed::Recorded { expires_in, .. } => {
                    ensure(RULE, expires_in <= ttl + RESOLUTION, || {
                        format!("{expires_in:?} are left of {ttl:?}")
                    })?;
                }
                // The claim took too long, and arrived after the end.
                Claimed::Fresh { .. } if Instant::now() + RESOLUTION >= asked_at + ttl => {
                    return Ok(());
                }
                other => return broken(RULE, format!("a claim on a record got {other:?}")),
            }
        }
        subject.pause(ttl / 16).await;
    }
    // The record is gone, so its fingerprint no longer matters.
    let mut other = holding(claim(id, LONG));
    other.fingerprint = OTHER;
    let won = subject.win(RULE, other).await?;
    same(RULE, "the attempt after an expiry", &1, &won.attempt)
}

/// Claims, completes, and lets the record expire. Then does the same again with another response.
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
