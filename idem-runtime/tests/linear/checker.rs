//! Checks whether a concurrent history is linearizable, with the search of Wing and Gong. As in
//! Lowe's variant, a transition gets its place only when its response arrives.
//!
//! The search keeps every possible order of the history so far, without duplicates. When a response
//! arrives, orders that already contain the transition stay as they are. All other orders are
//! extended by the transition, and before it by other transitions that are still running. When no
//! order remains, the history is not linearizable.

use std::collections::HashSet;
use std::fmt::Write;

use crate::model::{Answer, Call, State};

/// One transition of a history, from its call to its response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    pub(crate) client: usize,
    pub(crate) called_at: u64,
    pub(crate) answered_at: u64,
    pub(crate) call: Call,
    /// `None` when the transition failed: it may have been applied, may still be applied later, or
    /// never.
    pub(crate) answer: Option<Answer>,
}

/// One possible order of the history so far.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Telling {
    state: State,
    /// Which of the running transitions the order already contains.
    told: u128,
}

struct Search {
    tellings: HashSet<Telling>,
    under_way: Vec<Option<Transition>>,
}

impl Search {
    fn begin(&mut self, transition: Transition) -> usize {
        let free = self.under_way.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.under_way.push(None);
            self.under_way.len() - 1
        });
        assert!(place < 128, "too many transitions with lost responses");
        self.under_way[place] = Some(transition);
        place
    }

    /// Keeps the orders in which the transition at `place` gets its response. Returns whether there
    /// are any.
    fn answer(&mut self, place: usize) -> bool {
        let mut todo: Vec<_> = self.tellings.drain().collect();
        let mut seen: HashSet<_> = todo.iter().cloned().collect();
        while let Some(telling) = todo.pop() {
            if telling.told & bit(place) != 0 {
                let told = telling.told & !bit(place);
                self.tellings.insert(Telling { told, ..telling });
                continue;
            }
            for (other, transition) in self.under_way.iter().enumerate() {
                let Some(transition) = transition else {
                    continue;
                };
                if telling.told & bit(other) != 0 {
                    continue;
                }
                for state in telling.state.after(&transition.call, transition.answer) {
                    // A transition without a response and without an effect needs no place in the
                    // order.
                    if transition.answer.is_none() && state == telling.state {
                        continue;
                    }
                    let told = telling.told | bit(other);
                    let next = Telling { state, told };
                    if seen.insert(next.clone()) {
                        todo.push(next);
                    }
                    assert!(seen.len() < 100_000, "too many transitions run at once");
                }
            }
        }
        self.under_way[place] = None;
        !self.tellings.is_empty()
    }
}

fn bit(place: usize) -> u128 {
    1 << place
}

/// Checks the history of one record id.
///
/// # Errors
///
/// The history up to the first response that no order explains.
pub(crate) fn check(history: &[Transition]) -> Result<(), String> {
    let mut events: Vec<(u64, usize, bool)> = Vec::with_capacity(history.len() * 2);
    for (number, transition) in history.iter().enumerate() {
        events.push((transition.called_at, number, false));
        if transition.answer.is_some() {
            events.push((transition.answered_at, number, true));
        }
    }
    events.sort_unstable();
    let mut search = Search {
        tellings: HashSet::from([Telling {
            state: State::NEW,
            told: 0,
        }]),
        under_way: Vec::new(),
    };
    let mut places = vec![0; history.len()];
    for (at, number, is_answer) in events {
        if !is_answer {
            places[number] = search.begin(history[number]);
            continue;
        }
        let before: Vec<_> = search.tellings.iter().map(|it| it.state).collect();
        if !search.answer(places[number]) {
            return Err(explain(history, at, &before));
        }
    }
    Ok(())
}

/// The number of transitions that a report shows.
const SHOWN: usize = 30;

fn explain(history: &[Transition], at: u64, before: &[State]) -> String {
    let mut text = String::from("no sequence of transitions explains the last response:\n");
    let mut until: Vec<_> = history.iter().filter(|it| it.called_at < at).collect();
    until.sort_unstable_by_key(|it| it.answered_at);
    let cut = until.len().saturating_sub(SHOWN);
    if cut > 0 {
        let _ = writeln!(text, "  ({cut} earlier transitions)");
    }
    for transition in &until[cut..] {
        let Transition {
            client,
            called_at,
            answered_at,
            call,
            answer,
        } = transition;
        let _ = match answer {
            Some(answer) if *answered_at <= at => writeln!(
                text,
                "  client {client} {called_at}..{answered_at}: {call:?} -> {answer:?}"
            ),
            Some(_) => writeln!(text, "  client {client} {called_at}..: {call:?}"),
            None => writeln!(text, "  client {client} {called_at}..: {call:?} -> lost"),
        };
    }
    let _ = write!(text, "possible states before it: {before:?}");
    text
}

/// Tests of the checker with histories that were written by hand.
#[cfg(test)]
mod tests {
    use idem_runtime::store::Owner;

    use super::*;
    use crate::model::Life;

    fn owner(number: u8) -> Owner {
        Owner::from_bytes([number; 16])
    }

    fn claim(number: u8) -> Call {
        Call::Claim {
            owner: owner(number),
            fingerprint: 1,
            lease: Life::Long,
            retention: Life::Long,
            rerun: true,
        }
    }

    fn check_all(history: &[(u64, u64, Call, Option<Answer>)]) -> bool {
        let transitions = history.iter().enumerate();
        let transitions: Vec<_> = transitions
            .map(
                |(client, (called_at, answered_at, call, answer))| Transition {
                    client,
                    called_at: *called_at,
                    answered_at: *answered_at,
                    call: *call,
                    answer: *answer,
                },
            )
            .collect();
        check(&transitions).is_ok()
    }

    #[test]
    fn either_of_two_concurrent_claims_may_win_but_not_both() {
        let fresh = Some(Answer::Fresh(1, 1));
        let in_flight = Some(Answer::InFlight(1));
        assert!(check_all(&[
            (0, 3, claim(1), in_flight),
            (1, 2, claim(2), fresh)
        ]));
        assert!(check_all(&[
            (0, 3, claim(1), fresh),
            (1, 2, claim(2), in_flight)
        ]));
        let both = Some(Answer::Fresh(2, 1));
        assert!(!check_all(&[
            (0, 3, claim(1), fresh),
            (1, 2, claim(2), both)
        ]));
    }

    /// The first claim returned before the claim that it allegedly saw was called.
    #[test]
    fn a_claim_is_not_seen_before_it_is_called() {
        let fresh = Some(Answer::Fresh(1, 1));
        let in_flight = Some(Answer::InFlight(1));
        assert!(!check_all(&[
            (0, 1, claim(1), in_flight),
            (2, 3, claim(2), fresh)
        ]));
    }

    #[test]
    fn a_claim_with_a_lost_response_may_take_effect_late() {
        let seen = Some(Answer::SeesInFlight(1, 7, 1));
        let nothing = Some(Answer::SeesNothing);
        assert!(check_all(&[
            (0, 0, claim(1), None),
            (1, 2, Call::LookUp, nothing),
            (3, 4, Call::LookUp, seen),
            (5, 6, claim(1), Some(Answer::Fresh(7, 1))),
        ]));
        assert!(!check_all(&[
            (0, 0, claim(1), None),
            (1, 2, Call::LookUp, seen),
            (3, 4, Call::LookUp, nothing),
        ]));
    }

    #[test]
    fn a_fence_is_never_reused() {
        let held = (owner(1), 5);
        let done = Some(Answer::Done);
        let again = |fence| {
            check_all(&[
                (0, 1, claim(1), Some(Answer::Fresh(5, 1))),
                (2, 3, Call::Release(held), done),
                (4, 5, claim(2), Some(Answer::Fresh(fence, 1))),
            ])
        };
        assert!(again(6));
        assert!(!again(5));
    }
}
