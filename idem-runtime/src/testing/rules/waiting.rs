//! Rule 1 for a claimer that will wait. It gets the same result as any other claimer, and is woken
//! if the store promised so.

use std::time::Duration;

use tokio::time::Instant;

use super::super::subject::{FIRST, LONG, Subject, Won, claim, holding, record};
use super::super::violation::{Under, Violation, broken, ensure, same, settled};
use crate::request::record_id::RecordId;
use crate::store::{Changed, Claim, Claimed, Settled};

const RULE: u8 = 1;
/// A wake-up that takes longer counts as missing.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    let free = waiting(subject.id());
    subject.win(RULE, free.clone()).await?;
    // The owner claims again, and later somebody claims the recorded id.
    let won = subject.win(RULE, free).await?;
    let kept = record("waited-for");
    subject
        .complete(RULE, won.holder, kept.clone(), LONG)
        .await?;
    match subject
        .store
        .claim(waiting(won.holder.id))
        .await
        .under(RULE)?
    {
        Claimed::Recorded { record, .. } => same(RULE, "a replay", &kept, &record)?,
        other => return broken(RULE, format!("a claim on a record got {other:?}")),
    }

    let lapsed = subject.lapse(RULE).await?;
    let held = holding(waiting(lapsed.holder.id));
    match subject.store.claim(held).await.under(RULE)? {
        Claimed::Unknown { .. } => {}
        other => return broken(RULE, format!("a claim that must not rerun got {other:?}")),
    }
    let won = subject.win(RULE, waiting(lapsed.holder.id)).await?;
    same(RULE, "the attempt of a takeover", &2, &won.attempt)?;

    let changed = in_flight(subject, won).await?;
    subject.abandon(RULE, won.holder, LONG).await?;
    is_woken(changed, "abandoned").await?;
    let won = subject.win(RULE, waiting(won.holder.id)).await?;

    let changed = in_flight(subject, won).await?;
    let released = subject.store.release(won.holder).await;
    settled(RULE, Settled::Done, released)?;
    is_woken(changed, "released").await?;
    let won = subject.win(RULE, waiting(won.holder.id)).await?;

    let changed = in_flight(subject, won).await?;
    subject.complete(RULE, won.holder, kept, LONG).await?;
    is_woken(changed, "completed").await
}

fn waiting(id: RecordId) -> Claim {
    let mut claim = claim(id, LONG);
    claim.wait = true;
    claim
}

/// The handles that wake two claimers which wait for the claim to end, if the store has them.
async fn in_flight(subject: &Subject, won: Won) -> Result<[Option<Changed>; 2], Violation> {
    let mut both = [None, None];
    for one in &mut both {
        let looked_at = Instant::now();
        let claimed = subject.store.claim(waiting(won.holder.id)).await;
        match claimed.under(RULE)? {
            Claimed::InFlight {
                fingerprint,
                lease_left,
                changed,
            } => {
                same(RULE, "the claim in flight", &FIRST, &fingerprint)?;
                won.lease.has_left(RULE, "a lease", lease_left, looked_at)?;
                *one = changed;
            }
            other => return broken(RULE, format!("a claim on an id in flight got {other:?}")),
        }
    }
    Ok(both)
}

/// The claimers start to wait after the claim has ended. They must still be woken.
async fn is_woken(changed: [Option<Changed>; 2], how: &str) -> Result<(), Violation> {
    for changed in changed.into_iter().flatten() {
        let woken = tokio::time::timeout(PATIENCE, changed.wait()).await;
        ensure(RULE, woken.is_ok(), || {
            format!("a claim was {how}, and a claimer that waits for it was not woken")
        })?;
    }
    Ok(())
}
