//! A transition that is dropped half way leaves the old state or the new one. Looked at under rule 8:
//! it is what a claimer without an answer relies on.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use super::super::Violation;
use super::super::subject::{LONG, Subject, Under, Won, broken, claim, record, same, settled};
use crate::store::{Claimed, Holder, Settled, StoreFuture};

const RULE: u8 = 8;
/// More polls than a transition of any store takes before it waits for its engine.
const POLLS: usize = 6;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    for polls in 0..POLLS {
        let won = claims(subject, polls).await?;
        renewals(subject, won, polls).await?;
        completions(subject, won.holder, polls).await?;
        releases(subject, polls).await?;
    }
    Ok(())
}

/// A claimer that never heard asks again, and wins.
async fn claims(subject: &Subject, polls: usize) -> Result<Won, Violation> {
    let first = claim(subject.id(), LONG);
    cut_off(subject.store.claim(first.clone()), polls).await;
    let won = subject.win(RULE, first).await?;
    same(RULE, "the attempt of a repeated claim", &1, &won.attempt)?;
    Ok(won)
}

async fn renewals(subject: &Subject, won: Won, polls: usize) -> Result<(), Violation> {
    cut_off(subject.store.renew(won.holder, LONG), polls).await;
    let renewed = subject.store.renew(won.holder, LONG).await;
    settled(RULE, Settled::Done, renewed)
}

async fn completions(subject: &Subject, holder: Holder, polls: usize) -> Result<(), Violation> {
    let kept = record("dropped");
    let completed = subject.store.complete(holder, kept.clone(), LONG);
    cut_off(completed, polls).await;
    // Done, or lost where the store does not tell a repeated completion.
    let again = subject.store.complete(holder, kept.clone(), LONG).await;
    let _ = again.under(RULE)?;
    let replay = subject.replay(RULE, holder.id).await?;
    same(RULE, "a replay of a repeated answer", &kept, &replay)
}

async fn releases(subject: &Subject, polls: usize) -> Result<(), Violation> {
    let won = subject.hold(RULE).await?;
    cut_off(subject.store.release(won.holder), polls).await;
    let _ = subject.store.release(won.holder).await.under(RULE)?;
    match subject
        .store
        .claim(claim(won.holder.id, LONG))
        .await
        .under(RULE)?
    {
        Claimed::Fresh { attempt: 1, .. } => Ok(()),
        other => broken(
            RULE,
            format!("a claim after a repeated release got {other:?}"),
        ),
    }
}

/// Polls a transition a few times, and drops it.
async fn cut_off<T>(transition: StoreFuture<T>, polls: usize) {
    let mut transition = pin!(transition);
    for _ in 0..polls {
        let mut context = Context::from_waker(Waker::noop());
        if transition.as_mut().poll(&mut context).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}
