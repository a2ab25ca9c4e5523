//! Whether a concurrent history can be told as a sequence: the search of Wing and Gong, each
//! transition put in its place only when it has answered, as Lowe does it.
//!
//! Every way to tell the history so far is kept, each once. At an answer, those that have the
//! transition in them already go on as they are; the rest are tried with it, and with what else was
//! under way put in before it. A history that cannot be told at all is not linearizable.

use std::collections::HashSet;
use std::fmt::Write;

use crate::model::{Answer, Call, State};

/// One transition of a history, between its call and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    pub(crate) client: usize,
    pub(crate) called_at: u64,
    pub(crate) answered_at: u64,
    pub(crate) call: Call,
    /// `None` for one that failed: it may have been applied, may be later, or never.
    pub(crate) answer: Option<Answer>,
}

/// A way to tell the history so far.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Telling {
    state: State,
    /// Which of those under way are told already.
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
        assert!(place < 128, "too many transitions whose answers were lost");
        self.under_way[place] = Some(transition);
        place
    }

    /// Keeps the tellings in which the transition at `place` gave its answer; says whether there are
    /// any.
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
                    // Without an answer and without an effect, it need not be told.
                    if transition.answer.is_none() && state == telling.state {
                        continue;
                    }
                    let told = telling.told | bit(other);
                    let next = Telling { state, told };
                    if seen.insert(next.clone()) {
                        todo.push(next);
                    }
                    assert!(seen.len() < 100_000, "too much is under way at once");
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
/// The history up to the first answer that no telling explains.
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

/// How much of a history is shown.
const SHOWN: usize = 30;

fn explain(history: &[Transition], at: u64, before: &[State]) -> String {
    let mut text = String::from("no sequence of transitions explains the last answer:\n");
    let mut until: Vec<_> = history.iter().filter(|it| it.called_at < at).collect();
    until.sort_unstable_by_key(|it| it.answered_at);
    let cut = until.len().saturating_sub(SHOWN);
    if cut > 0 {
        let _ = writeln!(text, "  ({cut} before)");
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
    let _ = write!(text, "before it, one of: {before:?}");
    text
}

/// Histories written by hand, to see the checker itself.
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
    fn of_two_claims_at_once_one_wins_and_either_may() {
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

    /// It answered before the one that it is said to have seen was called.
    #[test]
    fn nothing_is_seen_before_it_is_called() {
        let fresh = Some(Answer::Fresh(1, 1));
        let in_flight = Some(Answer::InFlight(1));
        assert!(!check_all(&[
            (0, 1, claim(1), in_flight),
            (2, 3, claim(2), fresh)
        ]));
    }

    #[test]
    fn a_lost_answer_may_have_been_any_and_its_effect_may_come_late() {
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
    fn a_fence_does_not_come_back() {
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
