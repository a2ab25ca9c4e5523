//! Rule 8: a claimer whose reply was lost recognizes its own claim.

use super::super::subject::{LONG, Subject, claim, record};
use super::super::violation::{Under, Violation, same, settled};
use crate::store::{Claimed, Settled};

const RULE: u8 = 8;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    let first = claim(subject.id(), LONG);
    let won = subject.win(RULE, first.clone()).await?;
    for _ in 0..2 {
        let again = subject.win(RULE, first.clone()).await?;
        same(RULE, "the fence", &won.holder.fence, &again.holder.fence)?;
        same(RULE, "the attempt", &won.attempt, &again.attempt)?;
    }

    let lapsed = subject.lapse(RULE).await?;
    let takeover = claim(lapsed.holder.id, LONG);
    let won = subject.win(RULE, takeover.clone()).await?;
    let again = subject.win(RULE, takeover.clone()).await?;
    same(RULE, "the fence", &won.holder.fence, &again.holder.fence)?;
    same(RULE, "the attempt", &2, &again.attempt)?;

    let kept = record("own");
    let completed = subject.store.complete(won.holder, kept.clone(), LONG).await;
    settled(RULE, Settled::Done, completed)?;
    let late = subject.store.claim(takeover).await.under(RULE)?;
    let is_its_record = matches!(&late, Claimed::Recorded { record, .. } if *record == kept);
    same(RULE, "a claim after its own record", &true, &is_its_record)
}
