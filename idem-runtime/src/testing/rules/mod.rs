//! One file for each rule, or for rules that are one.

mod dropped;
mod expiry;
mod fences;
mod fidelity;
mod holders;
mod leases;
mod operators;
mod own_claim;
mod races;
mod unreadable;

use super::subject::Subject;
use super::{Damage, Violation};

/// Runs every rule; the cheap ones first, so that a store that is wrong is told soon.
pub(super) async fn run(
    subject: &Subject,
    rounds: usize,
    damage: Option<&Damage>,
) -> Result<(), Violation> {
    races::alone(subject).await?;
    races::many(subject, rounds).await?;
    holders::run(subject).await?;
    own_claim::run(subject).await?;
    dropped::run(subject).await?;
    fidelity::run(subject).await?;
    if let Some(damage) = damage {
        unreadable::run(subject, damage).await?;
    }
    fences::run(subject).await?;
    leases::run(subject).await?;
    expiry::run(subject).await?;
    operators::run(subject).await
}
