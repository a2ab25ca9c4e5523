//! Rule 6: an entry that cannot be read is an error, and stays in place.

use std::future::Future;
use std::pin::Pin;

use super::super::subject::{LONG, Subject, claim, record};
use super::super::violation::{Violation, broken, settled};
use crate::request::record_id::RecordId;
use crate::store::{Settled, StoreError};

/// Makes the entry under a record id unreadable.
pub(in crate::testing) type Damage =
    dyn Fn(RecordId) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

const RULE: u8 = 6;

pub(super) async fn run(subject: &Subject, damage: &Damage) -> Result<(), Violation> {
    let won = subject.hold(RULE).await?;
    let completed = subject.store.complete(won.holder, record("whole"), LONG);
    settled(RULE, Settled::Done, completed.await)?;
    damage(won.holder.id).await;
    is_an_error(subject, won.holder.id).await?;

    let won = subject.hold(RULE).await?;
    damage(won.holder.id).await;
    is_an_error(subject, won.holder.id).await
}

/// Checks twice, because the first claim must not have deleted the entry.
async fn is_an_error(subject: &Subject, id: RecordId) -> Result<(), Violation> {
    for _ in 0..2 {
        match subject.store.claim(claim(id, LONG)).await {
            Err(StoreError::Undecodable(_)) => {}
            other => return broken(RULE, format!("a claim on damaged bytes got {other:?}")),
        }
        match subject.store.look_up(id).await {
            Err(StoreError::Undecodable(_)) => {}
            other => return broken(RULE, format!("a `look_up` of damaged bytes got {other:?}")),
        }
    }
    Ok(())
}
