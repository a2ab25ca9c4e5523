//! A transition that is dropped half way leaves the old state or the new state. This belongs to
//! rule 8, because a claimer without a reply relies on it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::super::subject::{LONG, Subject, claim, record};
use super::super::violation::{Under, Violation, broken, ensure, same, settled};
use crate::store::{Claimed, Settled, StoreFuture};

const RULE: u8 = 8;
/// A transition that returns `Pending` more often is not followed further.
const MOST_POLLS: usize = 50;

#[derive(Clone, Copy, Debug)]
enum Dropped {
    Claim,
    Takeover,
    Renew,
    Complete,
    Release,
    Abandon,
    LookUp,
    Forget,
    Resolve,
}

/// Drops each transition before its first poll, after its first poll, after its second poll, and so
/// on until it completes.
pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    use Dropped::{Abandon, Claim, Complete, Forget, LookUp, Release, Renew, Resolve, Takeover};
    for transition in [
        Claim, Takeover, Renew, Complete, Release, Abandon, LookUp, Forget, Resolve,
    ] {
        for polls in 0..MOST_POLLS {
            if transition.after(subject, polls).await? {
                break;
            }
        }
    }
    Ok(())
}

impl Dropped {
    /// Drops the transition after this number of polls. Then repeats it, as a caller without a
    /// reply would, and checks the state. Returns whether the transition had completed before it
    /// was dropped.
    async fn after(self, subject: &Subject, polls: usize) -> Result<bool, Violation> {
        let store = &subject.store;
        let kept = record("dropped");
        match self {
            Self::Claim => {
                let first = claim(subject.id(), LONG);
                let ended = cut_off(store.claim(first.clone()), polls).await;
                let won = subject.win(RULE, first).await?;
                same(RULE, "the attempt of a repeated claim", &1, &won.attempt)?;
                Ok(ended)
            }
            Self::Takeover => {
                let lapsed = subject.lapse(RULE).await?;
                let takeover = claim(lapsed.holder.id, LONG);
                let ended = cut_off(store.claim(takeover.clone()), polls).await;
                let won = subject.win(RULE, takeover).await?;
                same(RULE, "the attempt of a repeated takeover", &2, &won.attempt)?;
                Ok(ended)
            }
            Self::Renew => {
                let won = subject.hold(RULE).await?;
                let ended = cut_off(store.renew(won.holder, LONG), polls).await;
                let again = store.renew(won.holder, LONG).await;
                settled(RULE, Settled::Done, again)?;
                Ok(ended)
            }
            Self::Complete => {
                let won = subject.hold(RULE).await?;
                let completed = store.complete(won.holder, kept.clone(), LONG);
                let ended = cut_off(completed, polls).await;
                // `Done`, or `Lost` from a store that does not recognize a repeated completion.
                let again = store.complete(won.holder, kept.clone(), LONG).await;
                let _ = again.under(RULE)?;
                let replay = subject.replay(RULE, won.holder.id).await?;
                same(RULE, "a replay after a repeated `complete`", &kept, &replay)?;
                Ok(ended)
            }
            Self::Release => {
                let won = subject.hold(RULE).await?;
                let ended = cut_off(store.release(won.holder), polls).await;
                let _ = store.release(won.holder).await.under(RULE)?;
                match store.claim(claim(won.holder.id, LONG)).await.under(RULE)? {
                    Claimed::Fresh { attempt: 1, .. } => Ok(ended),
                    other => broken(
                        RULE,
                        format!("a claim after a repeated release got {other:?}"),
                    ),
                }
            }
            Self::Abandon => {
                let won = subject.hold(RULE).await?;
                let ended = cut_off(store.abandon(won.holder), polls).await;
                let again = store.abandon(won.holder).await;
                settled(RULE, Settled::Done, again)?;
                let heir = subject.win(RULE, claim(won.holder.id, LONG)).await?;
                same(RULE, "the attempt after being abandoned", &2, &heir.attempt)?;
                Ok(ended)
            }
            Self::LookUp => {
                let won = subject.hold(RULE).await?;
                let ended = cut_off(store.look_up(won.holder.id), polls).await;
                let completed = store.complete(won.holder, kept, LONG).await;
                settled(RULE, Settled::Done, completed)?;
                Ok(ended)
            }
            Self::Forget => {
                let won = subject.hold(RULE).await?;
                let ended = cut_off(store.forget(won.holder.id), polls).await;
                let _ = store.forget(won.holder.id).await.under(RULE)?;
                let entry = subject.entry(RULE, won.holder.id).await?;
                let is_gone = entry.is_none();
                ensure(RULE, is_gone, || format!("forget left {entry:?}"))?;
                Ok(ended)
            }
            Self::Resolve => {
                let lapsed = subject.lapse(RULE).await?.holder;
                let resolve = || store.resolve(lapsed.id, lapsed.fence, kept.clone(), LONG);
                let ended = cut_off(resolve(), polls).await;
                let _ = resolve().await.under(RULE)?;
                let replay = subject.replay(RULE, lapsed.id).await?;
                same(RULE, "a replay after a repeated `resolve`", &kept, &replay)?;
                Ok(ended)
            }
        }
    }
}

/// Polls a transition this number of times, each time that it is woken, and drops it. Returns
/// whether it completed.
async fn cut_off<T>(transition: StoreFuture<T>, polls: usize) -> bool {
    let mut transition = pin!(transition);
    let mut left = polls;
    poll_fn(|cx| {
        if left > 0 {
            if transition.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            left -= 1;
        }
        if left == 0 {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    })
    .await
}
