//! The rules of the `Store` trait, and the order in which the suite checks them.
//!
//! Each file checks one rule, or several rules together. All files use the subject, the handles and
//! the violations of `testing`. `rivals.rs` has the pairs of transitions that meet on one id.

mod dropped;
mod expiry;
mod fences;
mod fidelity;
mod holders;
mod interleavings;
mod lapses;
mod leases;
mod listing;
mod operators;
mod own_claim;
mod pairs;
mod races;
mod rivals;
mod two_handles;
mod unreadable;
mod waiting;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

pub(super) use self::unreadable::Damage;
use super::handles::Handles;
use super::subject::Subject;
use super::violation::{Violation, broken};

/// Checks every rule. The races come last, because they keep every processor busy.
pub(super) async fn run(
    subject: &Subject,
    handles: &Handles,
    rounds: usize,
    damage: Option<&Damage>,
) -> Result<(), Violation> {
    under(1, races::alone(subject)).await?;
    under(1, waiting::run(subject)).await?;
    under(4, expiry::another_request(subject)).await?;
    under(10, operators::run(subject)).await?;
    under(10, Box::pin(listing::run(subject))).await?;
    under(2, holders::run(subject)).await?;
    under(8, own_claim::run(subject)).await?;
    under(8, dropped::run(subject)).await?;
    under(9, fidelity::run(subject)).await?;
    if handles.are_two() {
        under(1, two_handles::run(subject, handles)).await?;
    }
    if let Some(damage) = damage {
        under(6, unreadable::run(subject, damage)).await?;
    }
    under(7, fences::run(subject)).await?;
    under(3, leases::run(subject)).await?;
    under(4, expiry::run(subject)).await?;
    // Boxed because the future is large: it runs many checks at once.
    under(3, Box::pin(lapses::run(subject))).await?;
    under(1, interleavings::run(subject, handles)).await?;
    under(1, races::many(subject, rounds)).await?;
    under(1, pairs::run(subject, handles, rounds)).await
}

/// Runs checks. A panic counts as a violation of `rule`.
async fn under(
    rule: u8,
    checks: impl Future<Output = Result<(), Violation>>,
) -> Result<(), Violation> {
    let mut checks = pin!(checks);
    poll_fn(|cx| {
        let poll = || checks.as_mut().poll(cx);
        let panicked = |_| Poll::Ready(broken(rule, "a transition panicked"));
        catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(panicked)
    })
    .await
}
