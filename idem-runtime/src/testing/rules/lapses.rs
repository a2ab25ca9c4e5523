//! Rules 2, 3, 4, 7, 8 and 10 after time has passed: without `abandon` and without cleaning up.

use tokio::time::Instant;

use super::super::subject::{
    FIRST, LONG, Subject, claim, forgotten_after, holding, other, record, timed,
};
use super::super::violation::{Under, Violation, broken, ensure, same, settled};
use super::holders::all_lost;
use crate::store::{Claimed, Entry, Settled};

/// Runs all checks at once, because each of them has to wait.
pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    tokio::try_join!(
        lapsed(subject),
        forgotten(subject),
        longer_lease_than_retention(subject),
        renewed_past_its_retention(subject),
        renewed_to_a_short_lease(subject),
        taken_over_for_long(subject),
        taken_over_for_a_short_time(subject),
        asked_all_the_time(subject),
        looked_at_all_the_time(subject),
        own_claim(subject),
        expired(subject),
        resolved(subject),
    )?;
    Ok(())
}

/// A lapsed lease leaves an unknown outcome, which is remembered from the end of the lease.
async fn lapsed(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 3;
    let won = subject.win(RULE, claim(subject.id(), subject.tick)).await?;
    let late = subject.win(RULE, claim(subject.id(), subject.tick)).await?;
    subject.pass_by(late.lease).await;

    let retained = won.lease.followed_by(LONG);
    subject.is_unknown(RULE, won, retained).await?;
    let id = won.holder.id;
    for asked in [holding(claim(id, LONG)), other(id), holding(other(id))] {
        match subject.store.claim(asked).await.under(RULE)? {
            Claimed::Unknown { fingerprint } => {
                same(RULE, "the unknown outcome", &FIRST, &fingerprint)?;
            }
            other => return broken(RULE, format!("a claim that must not rerun got {other:?}")),
        }
    }
    let heir = subject.win(RULE, claim(id, LONG)).await?;
    same(RULE, "the attempt of a takeover", &2, &heir.attempt)?;
    all_lost(subject, won.holder).await?;
    subject.is_in_flight(RULE, heir).await?;

    // Nobody took over, so the late holder still owns its claim.
    let kept = record("late");
    let lives = subject
        .complete(RULE, late.holder, kept.clone(), LONG)
        .await?;
    subject
        .is_recorded(RULE, late.holder.id, &kept, lives)
        .await
}

/// After its retention a claim has no holder, but its fence still counts.
async fn forgotten(subject: &Subject) -> Result<(), Violation> {
    let tick = subject.tick;
    let mut won = Vec::new();
    for _ in 0..4 {
        let short = forgotten_after(subject.id(), tick, tick);
        won.push(subject.win(3, short).await?);
    }
    subject.pass(Instant::now(), tick * 2).await;

    let [seen, unseen, resolved, claimed] = won[..] else {
        return Ok(());
    };
    subject
        .is_gone(10, seen.holder.id, "a claim past its retention")
        .await?;
    subject
        .is_forgotten(10, unseen.holder.id, "a claim past its retention")
        .await?;
    let by_hand = record("by-hand");
    let (id, fence) = (resolved.holder.id, resolved.holder.fence);
    let result = subject.store.resolve(id, fence, by_hand, LONG).await;
    settled(10, Settled::Lost, result)?;
    all_lost(subject, resolved.holder).await?;
    let next = subject.win(3, holding(other(claimed.holder.id))).await?;
    same(3, "the attempt after the retention", &1, &next.attempt)?;
    let (before, now) = (claimed.holder.fence, next.holder.fence);
    ensure(7, now > before, || {
        format!("after a retention the fence went from {before} to {now}")
    })
}

/// The retention starts when the lease lapses, so it never ends a lease.
async fn longer_lease_than_retention(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 3;
    let long = forgotten_after(subject.id(), LONG, subject.tick);
    let won = subject.win(RULE, long).await?;
    subject.pass(Instant::now(), subject.tick).await;
    subject.is_in_flight(RULE, won).await?;
    let retained = subject.abandon(RULE, won.holder, subject.tick).await?;
    subject.is_unknown(RULE, won, retained).await
}

/// A renewal moves all deadlines that depend on the lease.
async fn renewed_past_its_retention(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 3;
    let tick = subject.tick;
    let short = forgotten_after(subject.id(), tick, tick);
    let mut won = subject.win(RULE, short).await?;
    let (renewed, lease) = timed(LONG, || subject.store.renew(won.holder, LONG)).await;
    settled(RULE, Settled::Done, renewed)?;
    won.lease = lease;
    subject.pass(Instant::now(), tick * 2).await;
    subject.is_in_flight(RULE, won).await?;
    let retained = subject.abandon(RULE, won.holder, tick).await?;
    subject.is_unknown(RULE, won, retained).await
}

/// A renewal can also move the deadlines to an earlier time.
async fn renewed_to_a_short_lease(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 3;
    let tick = subject.tick;
    let long = forgotten_after(subject.id(), LONG, tick);
    let won = subject.win(RULE, long).await?;
    let renewed = subject.store.renew(won.holder, tick).await;
    settled(RULE, Settled::Done, renewed)?;
    subject.pass(Instant::now(), tick * 2).await;
    subject
        .is_gone(RULE, won.holder.id, "a claim past its retention")
        .await
}

/// A takeover uses the lease and the retention of the new claim, not those of the earlier attempt.
async fn taken_over_for_long(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 3;
    let tick = subject.tick;
    let short = forgotten_after(subject.id(), tick, tick);
    let won = subject.win(RULE, short).await?;
    subject.abandon(RULE, won.holder, tick).await?;
    let heir = subject.win(RULE, claim(won.holder.id, LONG)).await?;
    subject.is_in_flight(RULE, heir).await?;
    subject.pass(Instant::now(), tick * 2).await;
    subject.is_in_flight(RULE, heir).await?;
    let retained = subject.abandon(RULE, heir.holder, LONG).await?;
    subject.is_unknown(RULE, heir, retained).await
}

async fn taken_over_for_a_short_time(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 3;
    let tick = subject.tick;
    let lapsed = subject.lapse(RULE).await?;
    let id = lapsed.holder.id;
    let heir = subject.win(RULE, forgotten_after(id, tick, tick)).await?;
    subject.pass_by(heir.lease).await;
    subject
        .is_unknown(RULE, heir, heir.lease.followed_by(tick))
        .await?;
    subject.pass(Instant::now(), tick).await;
    subject
        .is_gone(RULE, id, "a claim past its retention")
        .await
}

/// Claims that see an unknown outcome do not extend its retention.
async fn asked_all_the_time(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 3;
    let won = subject
        .win(RULE, forgotten_after(subject.id(), LONG, subject.tick))
        .await?;
    let retained = subject.abandon(RULE, won.holder, subject.tick).await?;
    loop {
        let looked_at = Instant::now();
        match subject
            .store
            .claim(holding(other(won.holder.id)))
            .await
            .under(RULE)?
        {
            Claimed::Unknown { .. } => ensure(RULE, !retained.is_over(looked_at), || {
                "a claim on an unknown outcome extended its retention".to_owned()
            })?,
            Claimed::Fresh { .. } if retained.may_be_over() => return Ok(()),
            other => return broken(RULE, format!("a claim that must not rerun got {other:?}")),
        }
        subject.pause(subject.tick / 8).await;
    }
}

/// `look_up` extends neither the lease nor the retention of a claim.
async fn looked_at_all_the_time(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 10;
    let tick = subject.tick;
    let short = forgotten_after(subject.id(), tick, tick);
    let won = subject.win(RULE, short).await?;
    let retained = won.lease.followed_by(tick);
    loop {
        let looked_at = Instant::now();
        match subject.entry(RULE, won.holder.id).await? {
            Some(Entry::InFlight { lease_left, .. }) => {
                ensure(RULE, !won.lease.is_over(looked_at), || {
                    format!("`look_up` extended a lease of {tick:?}")
                })?;
                won.lease.has_left(RULE, "a lease", lease_left, looked_at)?;
            }
            Some(Entry::Unknown { retained_for, .. }) => {
                ensure(RULE, won.lease.may_be_over(), || {
                    format!("a lease of {tick:?} lapsed before its end")
                })?;
                ensure(RULE, !retained.is_over(looked_at), || {
                    format!("`look_up` shows a claim past its retention of {tick:?}")
                })?;
                retained.has_left(RULE, "a retention", retained_for, looked_at)?;
            }
            None if retained.may_be_over() => return Ok(()),
            entry => return broken(RULE, format!("a claim is shown as {entry:?}")),
        }
        subject.pause(tick / 8).await;
    }
}

/// A claimer that returns after its own lease has lapsed is treated like any other.
async fn own_claim(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 8;
    let first = claim(subject.id(), subject.tick);
    let won = subject.win(RULE, first.clone()).await?;
    subject.pass_by(won.lease).await;
    match subject
        .store
        .claim(holding(first.clone()))
        .await
        .under(RULE)?
    {
        Claimed::Unknown { .. } => {}
        other => {
            return broken(
                RULE,
                format!("an owner that may not rerun its own lapsed claim got {other:?}"),
            );
        }
    }
    let again = subject.win(RULE, first).await?;
    same(RULE, "the attempt after its own lapse", &2, &again.attempt)?;
    let (before, now) = (won.holder.fence, again.holder.fence);
    ensure(7, now > before, || {
        format!("after its own lapse the fence went from {before} to {now}")
    })
}

/// Nobody sees a record that has expired.
async fn expired(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 4;
    let won = subject.hold(RULE).await?;
    let unseen = subject.hold(RULE).await?.holder;
    subject
        .complete(RULE, unseen, record("unseen"), subject.tick)
        .await?;
    let lives = subject
        .complete(RULE, won.holder, record("expired"), subject.tick)
        .await?;
    // The holder's reply was lost, and the holder completes again.
    subject.pause(subject.tick / 2).await;
    let again = subject
        .store
        .complete(won.holder, record("expired"), subject.tick);
    let _ = again.await.under(RULE)?;
    subject.pass_by(lives).await;
    subject
        .is_gone(10, won.holder.id, "a record past its `ttl`")
        .await?;
    subject
        .is_forgotten(10, unseen.id, "a record past its `ttl`")
        .await?;
    all_lost(subject, won.holder).await?;
    let next = subject.win(RULE, holding(other(won.holder.id))).await?;
    same(RULE, "the attempt after an expiry", &1, &next.attempt)
}

/// An operator's record lives for its own `ttl`, whatever the durations of the claim were.
async fn resolved(subject: &Subject) -> Result<(), Violation> {
    const RULE: u8 = 10;
    let by_hand = record("by-hand");
    let long = subject.lapse(RULE).await?.holder;
    let resolve = || {
        let record = by_hand.clone();
        subject
            .store
            .resolve(long.id, long.fence, record, subject.tick)
    };
    let (resolved, ends) = timed(subject.tick, resolve).await;
    settled(RULE, Settled::Done, resolved)?;

    let short = forgotten_after(subject.id(), LONG, subject.tick);
    let won = subject.win(RULE, short).await?;
    let retained = subject.abandon(RULE, won.holder, subject.tick).await?;
    let (id, fence) = (won.holder.id, won.holder.fence);
    let resolve = || subject.store.resolve(id, fence, by_hand.clone(), LONG);
    let (resolved, lives) = timed(LONG, resolve).await;
    let is_in_time = resolved.under(RULE)? == Settled::Done;
    ensure(RULE, is_in_time || retained.may_be_over(), || {
        "an unknown outcome could not be resolved".to_owned()
    })?;

    subject.pass_by(ends).await;
    subject
        .is_gone(RULE, long.id, "an operator's record past its `ttl`")
        .await?;
    if is_in_time {
        subject.is_recorded(RULE, id, &by_hand, lives).await?;
    }
    Ok(())
}
