//! Rules 1, 2, 3, 4, 7 and 10 across two handles. One handle must not depend on what it alone has
//! seen, counted or locked.

use super::super::handles::Handles;
use super::super::subject::{LONG, Subject, claim, holding, other, record, timed};
use super::super::violation::{Under, Violation, ensure, same, settled};
use super::holders::all_lost;
use crate::store::{Claimed, Settled};

pub(super) async fn run(subject: &Subject, handles: &Handles) -> Result<(), Violation> {
    let (first, second) = (&handles.first, &handles.second);
    for [here, there] in [[first, second], [second, first]] {
        let (here, there) = (subject.by(here), subject.by(there));
        claims(&here, &there).await?;
        records(&here, &there).await?;
        fences(&here, &there).await?;
    }
    Ok(())
}

/// The handle `there` sees each state of a claim before the handle `here` changes the state.
async fn claims(here: &Subject, there: &Subject) -> Result<(), Violation> {
    let id = here.id();
    let entry = there.entry(10, id).await?;
    ensure(10, entry.is_none(), || {
        format!("an id without an entry is shown as {entry:?}")
    })?;
    let mut won = here.win(1, claim(id, LONG)).await?;
    there.is_in_flight(1, won).await?;
    let half = LONG / 2;
    let (renewed, lease) = timed(half, || here.store.renew(won.holder, half)).await;
    settled(3, Settled::Done, renewed)?;
    won.lease = lease;
    there.is_in_flight(3, won).await?;

    let retained = here.abandon(3, won.holder, LONG).await?;
    there.is_unknown(3, won, retained).await?;
    let heir = there.win(1, claim(id, LONG)).await?;
    same(3, "the attempt of a takeover", &2, &heir.attempt)?;
    here.is_in_flight(1, heir).await?;
    all_lost(here, won.holder).await?;

    // The holder owns its claim through the other handle, too.
    let released = here.store.release(heir.holder).await;
    settled(2, Settled::Done, released)?;
    let won = there.win(1, holding(other(id))).await?;
    same(1, "the attempt after a release", &1, &won.attempt)
}

/// The handle `there` reads a record before the handle `here` changes it.
async fn records(here: &Subject, there: &Subject) -> Result<(), Violation> {
    let won = here.hold(4).await?;
    let id = won.holder.id;
    there.is_in_flight(1, won).await?;
    let kept = record("first");
    let lives = here.complete(4, won.holder, kept.clone(), LONG).await?;
    there.is_recorded(4, id, &kept, lives).await?;
    here.is_recorded(4, id, &kept, lives).await?;

    let was_there = here.store.forget(id).await.under(10)?;
    same(10, "forget", &true, &was_there)?;
    there.is_gone(10, id, "a forgotten record").await?;
    let won = there.win(10, claim(id, LONG)).await?;
    same(10, "the attempt after being forgotten", &1, &won.attempt)?;

    here.abandon(3, won.holder, LONG).await?;
    let by_hand = record("by-hand");
    let resolve = || {
        let record = by_hand.clone();
        here.store.resolve(id, won.holder.fence, record, there.tick)
    };
    let (resolved, lives) = timed(there.tick, resolve).await;
    settled(10, Settled::Done, resolved)?;
    there.is_recorded(10, id, &by_hand, lives).await?;
    there.pass_by(lives).await;
    match there.store.claim(claim(id, LONG)).await.under(4)? {
        Claimed::Fresh { attempt, .. } => same(4, "the attempt after an expiry", &1, &attempt),
        found => ensure(4, false, || {
            format!("a claim on a record past its `ttl` got {found:?}")
        }),
    }
}

/// The fences of one handle are higher than earlier fences of the other handle.
async fn fences(here: &Subject, there: &Subject) -> Result<(), Violation> {
    let id = here.id();
    let mut last = 0;
    for subject in [here, here, there, there, here, there] {
        let won = subject.win(7, claim(id, LONG)).await?;
        let now = won.holder.fence;
        ensure(7, now > last, || {
            format!("through another handle the fence went from {last} to {now}")
        })?;
        last = now;
        let released = subject.store.release(won.holder).await;
        settled(7, Settled::Done, released)?;
    }
    Ok(())
}
