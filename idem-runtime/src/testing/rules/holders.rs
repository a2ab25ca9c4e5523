//! Rule 2: only the holder of a claim can change it.

use std::time::Duration;

use super::super::subject::{LONG, Subject, claim, holding, other, record};
use super::super::violation::{Violation, ensure, same, settled};
use crate::store::{Holder, Owner, Settled};

const RULE: u8 = 2;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    nobody(subject).await?;
    impostors(subject).await?;
    zombies(subject).await?;
    repeated_completion(subject).await?;
    released_takeover(subject).await
}

/// Under an id without an entry, no transition of a holder takes effect.
async fn nobody(subject: &Subject) -> Result<(), Violation> {
    let holder = Holder {
        id: subject.id(),
        owner: Owner::unique(),
        fence: 1,
    };
    all_lost(subject, holder).await?;
    let entry = subject.entry(RULE, holder.id).await?;
    ensure(RULE, entry.is_none(), || {
        format!("a transition by nobody left {entry:?}")
    })
}

/// The right owner with a wrong fence, and the right fence with a wrong owner.
async fn impostors(subject: &Subject) -> Result<(), Violation> {
    let won = subject.hold(RULE).await?;
    for holder in [
        Holder {
            owner: Owner::unique(),
            ..won.holder
        },
        Holder {
            fence: won.holder.fence + 1,
            ..won.holder
        },
        Holder {
            fence: won.holder.fence - 1,
            ..won.holder
        },
    ] {
        all_lost(subject, holder).await?;
        subject.is_in_flight(RULE, won).await?;
    }
    Ok(())
}

/// A holder whose lease has lapsed, after another attempt took over and after that attempt
/// completed.
async fn zombies(subject: &Subject) -> Result<(), Violation> {
    let zombie = subject.lapse(RULE).await?;
    let heir = subject.win(RULE, claim(zombie.holder.id, LONG)).await?;
    all_lost(subject, zombie.holder).await?;
    subject.is_in_flight(RULE, heir).await?;

    let kept = record("heir");
    let completed = subject
        .store
        .complete(heir.holder, kept.clone(), LONG)
        .await;
    settled(RULE, Settled::Done, completed)?;
    all_lost(subject, zombie.holder).await?;
    let replay = subject.replay(RULE, heir.holder.id).await?;
    same(RULE, "a replay after a zombie", &kept, &replay)
}

/// After `complete`, nobody holds the claim. A holder whose reply was lost sends the same record
/// again; a store may then report `Done`.
async fn repeated_completion(subject: &Subject) -> Result<(), Violation> {
    let won = subject.hold(RULE).await?;
    let kept = record("first");
    let completed = subject.store.complete(won.holder, kept.clone(), LONG).await;
    settled(RULE, Settled::Done, completed)?;
    let soon = Duration::from_millis(1);
    let _ = subject.store.complete(won.holder, kept.clone(), soon).await;
    all_lost(subject, won.holder).await?;
    subject.pause(soon * 4).await;
    let replay = subject.replay(RULE, won.holder.id).await?;
    same(RULE, "a replay after a second `complete`", &kept, &replay)
}

/// A takeover that is released leaves nothing of the earlier attempts.
async fn released_takeover(subject: &Subject) -> Result<(), Violation> {
    let lapsed = subject.lapse(RULE).await?;
    let id = lapsed.holder.id;
    let heir = subject.win(RULE, claim(id, LONG)).await?;
    let released = subject.store.release(heir.holder).await;
    settled(RULE, Settled::Done, released)?;
    all_lost(subject, lapsed.holder).await?;
    let won = subject.win(RULE, holding(other(id))).await?;
    same(RULE, "the attempt after a release", &1, &won.attempt)
}

pub(super) async fn all_lost(subject: &Subject, holder: Holder) -> Result<(), Violation> {
    let store = &subject.store;
    let lost = |result| settled(RULE, Settled::Lost, result);
    lost(store.complete(holder, record("zombie"), LONG).await)?;
    lost(store.renew(holder, LONG).await)?;
    lost(store.abandon(holder).await)?;
    lost(store.release(holder).await)
}
