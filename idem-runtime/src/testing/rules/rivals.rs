//! Rule 1 for two transitions that meet on one id: a claim, and either another claim or a
//! transition of the holder. One of the two comes first, and the other sees the result of the
//! first.

use std::sync::Arc;

use super::super::subject::{LONG, Subject, claim, forgotten_after, record};
use super::super::violation::{Violation, broken, settled};
use crate::store::{Claimed, Holder, Owner, Settled, Store, StoreFuture};

pub(super) const RULE: u8 = 1;

/// The state of the id before the two transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Nothing,
    Released,
    Held,
    Abandoned,
    LeaseOver,
    RetentionOver,
    RecordExpired,
}

/// The transition that competes with the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    Claim,
    Renew,
    Complete,
    Release,
    Resolve,
}

/// The result of either transition.
#[derive(Debug)]
pub(super) enum Outcome {
    Claimed(Claimed),
    Settled(Settled),
}

/// A rival and a claim on an id in a given state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meeting {
    pub(super) state: State,
    pub(super) rival: Rival,
}

impl Meeting {
    /// Every state in which claims compete for an id, and every transition of a holder that a claim
    /// can overtake.
    pub(super) const ALL: [Self; 11] = [
        Self::of(State::Nothing, Rival::Claim),
        Self::of(State::Released, Rival::Claim),
        Self::of(State::Abandoned, Rival::Claim),
        Self::of(State::LeaseOver, Rival::Claim),
        Self::of(State::RetentionOver, Rival::Claim),
        Self::of(State::RecordExpired, Rival::Claim),
        Self::of(State::Held, Rival::Complete),
        Self::of(State::Abandoned, Rival::Renew),
        Self::of(State::Abandoned, Rival::Complete),
        Self::of(State::Abandoned, Rival::Release),
        Self::of(State::Abandoned, Rival::Resolve),
    ];

    const fn of(state: State, rival: Rival) -> Self {
        Self { state, rival }
    }

    /// Brings a new id into the state, and returns the last holder. A state that needs time is
    /// reached two ticks later.
    pub(super) async fn prepare(self, subject: &Subject) -> Result<Holder, Violation> {
        let (rule, tick) = (RULE, subject.tick);
        let holder = match self.state {
            State::Nothing => Holder {
                id: subject.id(),
                owner: Owner::unique(),
                fence: 0,
            },
            State::Held => subject.hold(rule).await?.holder,
            State::Abandoned => subject.lapse(rule).await?.holder,
            State::Released => {
                let holder = subject.hold(rule).await?.holder;
                let released = subject.store.release(holder).await;
                settled(rule, Settled::Done, released)?;
                holder
            }
            State::LeaseOver => {
                let short = claim(subject.id(), tick);
                subject.win(rule, short).await?.holder
            }
            State::RetentionOver => {
                let short = forgotten_after(subject.id(), tick, tick);
                subject.win(rule, short).await?.holder
            }
            State::RecordExpired => {
                let holder = subject.hold(rule).await?.holder;
                subject.complete(rule, holder, record("old"), tick).await?;
                holder
            }
        };
        Ok(holder)
    }

    /// Whether the state needs time.
    pub(super) fn takes_time(self) -> bool {
        matches!(
            self.state,
            State::LeaseOver | State::RetentionOver | State::RecordExpired
        )
    }

    /// The transition of the rival.
    pub(super) fn rival(self, store: &Arc<dyn Store>, held: Holder) -> StoreFuture<Outcome> {
        match self.rival {
            Rival::Claim => claims(store, held),
            Rival::Renew => store.renew(held, LONG).map(Outcome::Settled),
            Rival::Complete => {
                let completed = store.complete(held, record("rival"), LONG);
                completed.map(Outcome::Settled)
            }
            Rival::Release => store.release(held).map(Outcome::Settled),
            Rival::Resolve => {
                let resolved = store.resolve(held.id, held.fence, record("rival"), LONG);
                resolved.map(Outcome::Settled)
            }
        }
    }

    /// Checks that the results match an order in which one of the two came first.
    pub(super) fn judge(self, rival: &Outcome, claim: &Outcome) -> Result<(), Violation> {
        use Claimed::{Fresh, InFlight, Recorded};
        use Outcome::{Claimed as C, Settled as S};
        use Settled::{Done, Lost};
        let taken_over = match self.state {
            State::Abandoned | State::LeaseOver => 2,
            _ => 1,
        };
        let is_sequence = match (self.rival, rival, claim) {
            (Rival::Claim, C(Fresh { attempt, .. }), C(InFlight { .. }))
            | (Rival::Claim, C(InFlight { .. }), C(Fresh { attempt, .. }))
            | (_, S(Lost), C(Fresh { attempt, .. })) => {
                *attempt == taken_over && self.state != State::Held
            }
            (Rival::Complete | Rival::Resolve, S(Done), C(Recorded { .. }))
            | (Rival::Renew, S(Done), C(InFlight { .. }))
            | (Rival::Release, S(Done), C(Fresh { attempt: 1, .. })) => true,
            (Rival::Complete, S(Done), C(InFlight { .. })) => self.state == State::Held,
            _ => false,
        };
        if is_sequence {
            return Ok(());
        }
        let Self { state, rival: by } = self;
        broken(
            RULE,
            format!(
                "on an id that is `{state:?}`, `{by:?}` got {rival:?} while a claim got {claim:?}"
            ),
        )
    }
}

/// The claim that competes with the rival.
pub(super) fn claims(store: &Arc<dyn Store>, held: Holder) -> StoreFuture<Outcome> {
    store.claim(claim(held.id, LONG)).map(Outcome::Claimed)
}
