//! Rule 1 when one transition stops half way and another runs in the meantime.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::super::handles::Handles;
use super::super::subject::Subject;
use super::super::violation::{Under, Violation};
use super::rivals::{Meeting, Outcome, RULE, claims};
use crate::store::{Holder, StoreError, StoreFuture};

/// A transition that returns `Pending` more often is not followed further.
const MOST_POLLS: usize = 20;
/// The same limit for meetings that have to be prepared in advance.
const MOST_POLLS_PREPARED: usize = 3;

type Ended = Result<Outcome, StoreError>;

/// Stops each transition of each meeting after its first poll, its second poll, and so on until it
/// completes before it can be stopped.
pub(super) async fn run(subject: &Subject, handles: &Handles) -> Result<(), Violation> {
    let (timed, untimed): (Vec<_>, Vec<_>) = Meeting::ALL
        .into_iter()
        .partition(|meeting| meeting.takes_time());
    let mut prepared = Vec::new();
    for meeting in timed {
        for polls in 1..=MOST_POLLS_PREPARED {
            prepared.push((meeting, polls, two(subject, meeting).await?));
        }
    }
    let prepared_at = Instant::now();
    for meeting in untimed {
        for polls in 1..=MOST_POLLS {
            let held = two(subject, meeting).await?;
            if meet(handles, meeting, held, polls).await? {
                break;
            }
        }
    }
    subject.pass(prepared_at, subject.tick * 2).await;
    for (meeting, polls, held) in prepared {
        meet(handles, meeting, held, polls).await?;
    }
    Ok(())
}

async fn two(subject: &Subject, meeting: Meeting) -> Result<[Holder; 2], Violation> {
    Ok([
        meeting.prepare(subject).await?,
        meeting.prepare(subject).await?,
    ])
}

/// Stops the rival after this number of polls on one id, and the claim on the other id. Returns
/// whether both had completed by then.
async fn meet(
    handles: &Handles,
    meeting: Meeting,
    held: [Holder; 2],
    polls: usize,
) -> Result<bool, Violation> {
    let rival = meeting.rival(&handles.first, held[0]);
    let claim = claims(&handles.second, held[0]);
    let (rival_ended, rival, claim) = stopped(rival, polls, claim).await;
    meeting.judge(&rival.under(RULE)?, &claim.under(RULE)?)?;

    let rival = meeting.rival(&handles.first, held[1]);
    let claim = claims(&handles.second, held[1]);
    let (claim_ended, claim, rival) = stopped(claim, polls, rival).await;
    meeting.judge(&rival.under(RULE)?, &claim.under(RULE)?)?;
    Ok(rival_ended && claim_ended)
}

/// Polls `first` this number of times, then completes `second`, and then `first`. Returns whether
/// `first` completed before it was stopped, and both results.
async fn stopped(
    mut first: StoreFuture<Outcome>,
    polls: usize,
    mut second: StoreFuture<Outcome>,
) -> (bool, Ended, Ended) {
    if let Some(first) = polled(&mut first, polls).await {
        return (true, first, second.await);
    }
    let alone = tokio::select! {
        biased;
        second = &mut second => Some(second),
        () = patience() => None,
    };
    let (first, second) = if let Some(second) = alone {
        (first.await, second)
    } else {
        // `first` holds something that `second` waits for, such as a lock.
        tokio::join!(first, second)
    };
    (false, first, second)
}

/// Polls a transition this number of times, each time that it is woken.
async fn polled(transition: &mut StoreFuture<Outcome>, polls: usize) -> Option<Ended> {
    let mut left = polls;
    poll_fn(|cx| {
        left -= 1;
        match Pin::new(&mut *transition).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Long enough for a transition that nothing blocks.
async fn patience() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
