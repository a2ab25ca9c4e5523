//! Rule 10: what an operator sees and can do.

use super::super::subject::{FIRST, LONG, Subject, claim, record, timed};
use super::super::violation::{Under, Violation, ensure, same, settled};
use crate::store::{Entry, Settled};

const RULE: u8 = 10;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    look_up(subject).await?;
    forget(subject).await?;
    resolve(subject).await?;
    resolve_the_last_attempt(subject).await
}

/// An operator sees the current entry, and does not change it by looking.
async fn look_up(subject: &Subject) -> Result<(), Violation> {
    let nothing = subject.id();
    let entry = subject.entry(RULE, nothing).await?;
    ensure(RULE, entry.is_none(), || {
        format!("an id without an entry is shown as {entry:?}")
    })?;
    let won = subject.win(RULE, claim(nothing, LONG)).await?;
    subject.is_in_flight(RULE, won).await?;
    subject.is_in_flight(RULE, won).await?;

    let retained = subject.abandon(RULE, won.holder, LONG).await?;
    subject.is_unknown(RULE, won, retained).await?;
    subject.is_unknown(RULE, won, retained).await?;

    // The second attempt. An operator must see its number.
    let mut won = subject.win(RULE, claim(nothing, LONG)).await?;
    same(RULE, "the attempt of a takeover", &2, &won.attempt)?;
    subject.is_in_flight(RULE, won).await?;
    let half = LONG / 2;
    let (renewed, lease) = timed(half, || subject.store.renew(won.holder, half)).await;
    settled(RULE, Settled::Done, renewed)?;
    won.lease = lease;
    subject.is_in_flight(RULE, won).await?;

    let kept = record("seen");
    let lives = subject
        .complete(RULE, won.holder, kept.clone(), half)
        .await?;
    for _ in 0..2 {
        subject.is_recorded(RULE, nothing, &kept, lives).await?;
    }
    Ok(())
}

/// The fence of an earlier attempt does not resolve the outcome.
async fn resolve_the_last_attempt(subject: &Subject) -> Result<(), Violation> {
    let first = subject.lapse(RULE).await?.holder;
    let second = subject.win(RULE, claim(first.id, LONG)).await?;
    let by_hand = record("by-hand");
    let resolve = |fence| {
        let record = by_hand.clone();
        timed(LONG, move || {
            subject.store.resolve(first.id, fence, record, LONG)
        })
    };
    // The claim is in flight.
    settled(RULE, Settled::Lost, resolve(first.fence).await.0)?;
    settled(RULE, Settled::Lost, resolve(second.holder.fence).await.0)?;
    let retained = subject.abandon(RULE, second.holder, LONG).await?;
    for fence in [first.fence, second.holder.fence - 1, 0, u64::MAX] {
        if fence != second.holder.fence {
            settled(RULE, Settled::Lost, resolve(fence).await.0)?;
        }
    }
    subject.is_unknown(RULE, second, retained).await?;
    let (resolved, lives) = resolve(second.holder.fence).await;
    settled(RULE, Settled::Done, resolved)?;
    subject.is_recorded(RULE, first.id, &by_hand, lives).await
}

async fn forget(subject: &Subject) -> Result<(), Violation> {
    let in_flight = subject.hold(RULE).await?.holder;
    let unknown = subject.lapse(RULE).await?.holder;
    let recorded = subject.hold(RULE).await?.holder;
    let completed = subject.store.complete(recorded, record("forgotten"), LONG);
    settled(RULE, Settled::Done, completed.await)?;
    // Fills a cache with the record.
    subject.replay(RULE, recorded.id).await?;

    for holder in [in_flight, unknown, recorded] {
        let was_there = subject.store.forget(holder.id).await.under(RULE)?;
        same(RULE, "forget", &true, &was_there)?;
        let entry = subject.entry(RULE, holder.id).await?;
        ensure(RULE, entry.is_none(), || format!("forget left {entry:?}"))?;
        let was_there = subject.store.forget(holder.id).await.under(RULE)?;
        same(RULE, "a second forget", &false, &was_there)?;
        let late = subject.store.complete(holder, record("late"), LONG).await;
        settled(RULE, Settled::Lost, late)?;
        let won = subject.win(RULE, claim(holder.id, LONG)).await?;
        same(RULE, "the attempt after being forgotten", &1, &won.attempt)?;
    }
    Ok(())
}

/// An operator's record replaces an unknown outcome, and nothing else.
async fn resolve(subject: &Subject) -> Result<(), Violation> {
    let by_hand = record("by-hand");
    let resolve = |id, fence| subject.store.resolve(id, fence, by_hand.clone(), LONG);

    let held = subject.hold(RULE).await?.holder;
    settled(RULE, Settled::Lost, resolve(held.id, held.fence).await)?;

    let lapsed = subject.lapse(RULE).await?.holder;
    let another = resolve(lapsed.id, lapsed.fence + 1).await;
    settled(RULE, Settled::Lost, another)?;
    match subject.entry(RULE, lapsed.id).await? {
        Some(Entry::Unknown {
            fingerprint, fence, ..
        }) => {
            same(RULE, "look_up", &FIRST, &fingerprint)?;
            same(RULE, "look_up", &lapsed.fence, &fence)?;
        }
        entry => ensure(RULE, false, || {
            format!("an abandoned claim is shown as {entry:?}")
        })?,
    }
    settled(RULE, Settled::Done, resolve(lapsed.id, lapsed.fence).await)?;
    let replay = subject.replay(RULE, lapsed.id).await?;
    same(RULE, "a replay of an operator's record", &by_hand, &replay)?;

    // The attempt returns too late.
    let late = subject.store.complete(lapsed, record("late"), LONG).await;
    settled(RULE, Settled::Lost, late)?;
    let replay = subject.replay(RULE, lapsed.id).await?;
    same(RULE, "a replay of an operator's record", &by_hand, &replay)?;

    let nothing = resolve(subject.id(), 1).await;
    settled(RULE, Settled::Lost, nothing)
}
