//! Rule 3: a lease lapses without any call, whatever the `ttl` is, and the lapsed claim is
//! remembered.

use tokio::time::Instant;

use super::super::subject::{FIRST, LONG, OTHER, RESOLUTION, Subject, claim, holding, record};
use super::super::violation::{Under, Violation, broken, ensure, same, settled};
use crate::request::record_id::RecordId;
use crate::store::{Claimed, Entry, Settled};

const RULE: u8 = 3;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    boundary(subject).await?;
    unknown(subject).await?;
    late_but_not_replaced(subject).await?;
    renewed(subject).await?;
    retention(subject).await
}

/// The claim is in flight until the end of the lease, and can be taken over from then on.
async fn boundary(subject: &Subject) -> Result<(), Violation> {
    let id = subject.id();
    let asked_at = Instant::now();
    subject.win(RULE, claim(id, subject.tick)).await?;
    let won_at = Instant::now();
    loop {
        let look_at = Instant::now();
        let claimed = subject.store.claim(claim(id, LONG)).await.under(RULE)?;
        match claimed {
            Claimed::InFlight { lease_left, .. } => {
                ensure(RULE, look_at < won_at + subject.tick + RESOLUTION, || {
                    format!("a lease of {:?} has not lapsed", subject.tick)
                })?;
                ensure(RULE, lease_left <= subject.tick + RESOLUTION, || {
                    format!("{lease_left:?} are left of {:?}", subject.tick)
                })?;
            }
            Claimed::Fresh { attempt, .. } => {
                let early = Instant::now() + RESOLUTION < asked_at + subject.tick;
                ensure(RULE, !early, || "a lease lapsed before its end".to_owned())?;
                return same(RULE, "the attempt of a takeover", &2, &attempt);
            }
            other => return broken(RULE, format!("a claim on a leased id got {other:?}")),
        }
        subject.pause(subject.tick / 16).await;
    }
}

/// A caller that may not rerun a lapsed claim gets `Unknown`.
async fn unknown(subject: &Subject) -> Result<(), Violation> {
    let lapsed = subject.lapse(RULE).await?;
    let id = lapsed.holder.id;
    let mut other = claim(id, LONG);
    other.fingerprint = OTHER;
    for asked in [holding(claim(id, LONG)), other.clone(), holding(other)] {
        match subject.store.claim(asked).await.under(RULE)? {
            Claimed::Unknown { fingerprint } => {
                same(RULE, "the unknown outcome", &FIRST, &fingerprint)?;
            }
            other => return broken(RULE, format!("a claim that must not rerun got {other:?}")),
        }
    }
    let won = subject.win(RULE, claim(id, LONG)).await?;
    same(RULE, "the attempt of a takeover", &2, &won.attempt)
}

/// When nobody took over, the late holder still owns its claim.
async fn late_but_not_replaced(subject: &Subject) -> Result<(), Violation> {
    let store = &subject.store;
    let done = |result| settled(RULE, Settled::Done, result);

    let late = subject.lapse(RULE).await?;
    done(store.renew(late.holder, LONG).await)?;
    in_flight(subject, late.holder.id).await?;

    let late = subject.lapse(RULE).await?;
    done(store.complete(late.holder, record("late"), LONG).await)?;
    let replay = subject.replay(RULE, late.holder.id).await?;
    same(RULE, "a replay of a late record", &record("late"), &replay)?;

    let late = subject.lapse(RULE).await?;
    done(store.release(late.holder).await)?;
    let won = subject
        .win(RULE, holding(claim(late.holder.id, LONG)))
        .await?;
    same(RULE, "the attempt after a release", &1, &won.attempt)
}

/// A renewal counts from the time of the renewal, and may shorten the lease.
async fn renewed(subject: &Subject) -> Result<(), Violation> {
    let short = subject.win(RULE, claim(subject.id(), subject.tick)).await?;
    let renewed = subject.store.renew(short.holder, LONG).await;
    settled(RULE, Settled::Done, renewed)?;

    let long = subject.hold(RULE).await?;
    let renewed = subject.store.renew(long.holder, subject.tick).await;
    settled(RULE, Settled::Done, renewed)?;

    // The `ttl` does not depend on the lease, and the lease does not depend on the `ttl`.
    let recorded = subject.win(RULE, claim(subject.id(), subject.tick)).await?;
    let completed = subject
        .store
        .complete(recorded.holder, record("kept"), LONG);
    settled(RULE, Settled::Done, completed.await)?;

    subject.pass(Instant::now(), subject.tick).await;
    in_flight(subject, short.holder.id).await?;
    let won = subject.win(RULE, claim(long.holder.id, LONG)).await?;
    same(RULE, "the attempt after a short renewal", &2, &won.attempt)?;
    subject.replay(RULE, recorded.holder.id).await?;
    Ok(())
}

/// An unknown outcome is remembered for the claim's retention, counted from the end of the lease.
async fn retention(subject: &Subject) -> Result<(), Violation> {
    let id = subject.id();
    let mut short = claim(id, LONG);
    short.retention = subject.tick;
    let won = subject.win(RULE, short).await?;
    let abandoned = subject.store.abandon(won.holder).await;
    settled(RULE, Settled::Done, abandoned)?;
    let abandoned_at = Instant::now();
    match subject.entry(RULE, id).await? {
        Some(Entry::Unknown { retained_for, .. }) => {
            let is_in_time = retained_for <= subject.tick + RESOLUTION;
            ensure(RULE, is_in_time, || {
                format!("{retained_for:?} are left of {:?}", subject.tick)
            })?;
        }
        entry => return broken(RULE, format!("an abandoned claim is shown as {entry:?}")),
    }
    subject.pass(abandoned_at, subject.tick).await;
    let entry = subject.entry(RULE, id).await?;
    ensure(RULE, entry.is_none(), || {
        format!("past its retention, a claim is shown as {entry:?}")
    })?;
    // The claim has no holder, although no other claim has replaced it.
    let renewed = subject.store.renew(won.holder, LONG).await;
    settled(RULE, Settled::Lost, renewed)?;
    let completed = subject
        .store
        .complete(won.holder, record("forgotten"), LONG)
        .await;
    settled(RULE, Settled::Lost, completed)?;
    let mut other = holding(claim(id, LONG));
    other.fingerprint = OTHER;
    let won = subject.win(RULE, other).await?;
    same(RULE, "the attempt after the retention", &1, &won.attempt)
}

async fn in_flight(subject: &Subject, id: RecordId) -> Result<(), Violation> {
    let entry = subject.entry(RULE, id).await?;
    let is_in_flight = matches!(entry, Some(Entry::InFlight { .. }));
    ensure(RULE, is_in_flight, || {
        format!("a renewed claim is shown as {entry:?}")
    })
}
