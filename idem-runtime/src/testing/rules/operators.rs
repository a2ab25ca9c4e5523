//! Rule 10: what an operator sees and does.

use super::super::Violation;
use super::super::subject::{FIRST, LONG, Subject, Under, claim, ensure, record, same, settled};
use crate::store::{Entry, Settled};

const RULE: u8 = 10;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    forget(subject).await?;
    resolve(subject).await
}

async fn forget(subject: &Subject) -> Result<(), Violation> {
    let in_flight = subject.hold(RULE).await?.holder;
    let unknown = subject.lapse(RULE).await?.holder;
    let recorded = subject.hold(RULE).await?.holder;
    let completed = subject.store.complete(recorded, record("forgotten"), LONG);
    settled(RULE, Settled::Done, completed.await)?;
    // A cache has seen it.
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

/// An operator's answer takes the place of an unknown outcome, and of nothing else.
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
    same(RULE, "a replay of an operator's answer", &by_hand, &replay)?;

    // The attempt that came back is too late.
    let late = subject.store.complete(lapsed, record("late"), LONG).await;
    settled(RULE, Settled::Lost, late)?;
    let replay = subject.replay(RULE, lapsed.id).await?;
    same(RULE, "a replay of an operator's answer", &by_hand, &replay)?;

    let nothing = resolve(subject.id(), 1).await;
    settled(RULE, Settled::Lost, nothing)
}
