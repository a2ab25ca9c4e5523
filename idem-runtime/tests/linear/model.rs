//! The rules of the `Store` trait for one record id, as a state machine of sequential transitions.

use idem_runtime::store::Owner;

/// How long a lease, a retention or a `ttl` lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    /// Longer than the history.
    Long,
    /// Over as soon as it starts.
    Past,
    /// So short that it may or may not be over at any later moment.
    Soon,
}

/// The holder of a claim: its owner and fence.
pub(crate) type Held = (Owner, u64);

/// A transition, as the client called it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Claim {
        owner: Owner,
        fingerprint: u8,
        lease: Life,
        retention: Life,
        rerun: bool,
    },
    Renew(Held, Life),
    Complete(Held, u32, Life),
    /// Writes a record in a transaction.
    Record(Held, u32, Life),
    /// Commits that transaction.
    Commit(Held),
    Release(Held),
    Abandon(Held),
    LookUp,
    List,
    Forget,
    Resolve(u64, u32, Life),
}

/// The response of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Fresh(u64, u32),
    InFlight(u8),
    Unknown(u8),
    Recorded(u32),
    Full,
    Done,
    Lost,
    SeesNothing,
    SeesInFlight(u8, u64, u32),
    SeesUnknown(u8, u64, u32),
    ListsInFlight(u64, u32),
    ListsUnknown(u64, u32),
    ListsRecord,
    ListsTwice,
    WasThere(bool),
}

/// The state of one record id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    last_fence: u64,
    entry: Entry,
    /// The holder that released the key, until the next claim.
    freed_by: Option<Held>,
    /// The transaction that has written a record and is not committed.
    open: Option<Open>,
}

/// A transaction that has written a record. It commits whatever happens to its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Open {
    by: Held,
    record: u32,
    ttl: Life,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    Nothing,
    Claim(Claim),
    Record {
        /// The holder that completed the record. `None` for an operator's record.
        by: Option<Held>,
        record: u32,
        ttl: Life,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Claim {
    owner: Owner,
    /// `None` when the response to the claim was lost, so that its claimer does not know the fence
    /// either.
    fence: Option<u64>,
    attempt: u32,
    fingerprint: u8,
    lease: Life,
    retention: Life,
}

impl Claim {
    fn is_held_by(&self, held: Held) -> bool {
        self.owner == held.0 && self.fence == Some(held.1)
    }
}

impl State {
    pub(crate) const NEW: Self = Self {
        last_fence: 0,
        entry: Entry::Nothing,
        freed_by: None,
        open: None,
    };

    /// The possible states after `call` with the response `answer`. Empty when that response is
    /// impossible. A lost response may have been any response.
    pub(crate) fn after(&self, call: &Call, answer: Option<Answer>) -> Vec<Self> {
        let views = self.views().into_iter();
        views
            .filter_map(|view| view.step(call, answer))
            .collect::<Vec<_>>()
    }

    /// The possible forms of the state at this moment, depending on which durations are over.
    fn views(&self) -> Vec<Self> {
        let with = |entry| Self { entry, ..*self };
        match self.entry {
            Entry::Nothing => vec![*self],
            Entry::Record { ttl, .. } => match ttl {
                Life::Long => vec![*self],
                Life::Past => vec![with(Entry::Nothing)],
                Life::Soon => vec![*self, with(Entry::Nothing)],
            },
            Entry::Claim(claim) => {
                let mut views = Vec::with_capacity(3);
                if claim.lease != Life::Past {
                    views.push(*self);
                }
                if claim.lease != Life::Long {
                    if claim.retention != Life::Past {
                        let lease = Life::Past;
                        views.push(with(Entry::Claim(Claim { lease, ..claim })));
                    }
                    if claim.retention != Life::Long {
                        views.push(with(Entry::Nothing));
                    }
                }
                views
            }
        }
    }

    fn step(self, call: &Call, answer: Option<Answer>) -> Option<Self> {
        let may = |expected: Answer| answer.is_none_or(|given| given == expected);
        let becomes = |entry, expected| may(expected).then_some(Self { entry, ..self });
        let stays = |expected| may(expected).then_some(self);
        match (*call, self.entry) {
            (Call::Claim { .. }, _) => self.claim(call, answer),

            (Call::Renew(held, lease), Entry::Claim(claim)) if claim.is_held_by(held) => {
                becomes(Entry::Claim(Claim { lease, ..claim }), Answer::Done)
            }
            (Call::Abandon(held), Entry::Claim(claim)) if claim.is_held_by(held) => {
                let lease = Life::Past;
                becomes(Entry::Claim(Claim { lease, ..claim }), Answer::Done)
            }
            (Call::Release(held), Entry::Claim(claim)) if claim.is_held_by(held) => {
                let freed_by = Some(held);
                let freed = becomes(Entry::Nothing, Answer::Done);
                freed.map(|freed| Self { freed_by, ..freed })
            }
            // A repeated release: a store may report `Done`.
            (Call::Release(held), Entry::Nothing) if self.freed_by == Some(held) => {
                stays(Answer::Done).or_else(|| stays(Answer::Lost))
            }
            (Call::Record(held, record, ttl), Entry::Claim(claim))
                if self.open.is_none() && claim.is_held_by(held) =>
            {
                let by = held;
                let open = Some(Open { by, record, ttl });
                may(Answer::Done).then_some(Self { open, ..self })
            }
            // Waits for the other transaction.
            (Call::Record(held, ..), Entry::Claim(claim)) if claim.is_held_by(held) => None,
            (Call::Commit(held), entry) => {
                let open = self.open.filter(|open| open.by == held)?;
                // Of two records, the unique key lets one in.
                let is_alone = !matches!(entry, Entry::Record { .. });
                let (by, record, ttl) = (Some(held), open.record, open.ttl);
                (is_alone && may(Answer::Done)).then_some(Self {
                    entry: Entry::Record { by, record, ttl },
                    open: None,
                    ..self
                })
            }
            // The record of a later attempt waits for the transaction of an earlier one.
            (Call::Complete(..) | Call::Resolve(..), _)
                if answer == Some(Answer::Done) && self.open.is_some() =>
            {
                None
            }
            (Call::Complete(held, record, ttl), Entry::Claim(claim)) if claim.is_held_by(held) => {
                let by = Some(held);
                becomes(Entry::Record { by, record, ttl }, Answer::Done)
            }
            // A repeated completion: a store may report `Done`.
            (
                Call::Complete(held, again, _),
                Entry::Record {
                    by: Some(by),
                    record,
                    ..
                },
            ) if held == by && again == record => {
                stays(Answer::Done).or_else(|| stays(Answer::Lost))
            }
            (Call::Renew(..) | Call::Abandon(_) | Call::Release(_) | Call::Complete(..), _) => {
                stays(Answer::Lost)
            }

            (Call::LookUp, entry) => match (entry, answer) {
                (Entry::Nothing, _) => stays(Answer::SeesNothing),
                (Entry::Record { record, .. }, _) => stays(Answer::Recorded(record)),
                (Entry::Claim(_), None) => Some(self),
                (Entry::Claim(claim), Some(answer)) => self.sees(claim, answer),
            },
            (Call::List, entry) => match (entry, answer) {
                (Entry::Nothing, _) => stays(Answer::SeesNothing),
                (Entry::Record { .. }, _) => stays(Answer::ListsRecord),
                (Entry::Claim(_), None) => Some(self),
                (Entry::Claim(claim), Some(answer)) => self.lists(claim, answer),
            },
            (Call::Forget, Entry::Nothing) => stays(Answer::WasThere(false)),
            // Waits for the transaction, so that its record does not come back.
            (Call::Forget, _) if answer.is_some() && self.open.is_some() => None,
            (Call::Forget, _) => becomes(Entry::Nothing, Answer::WasThere(true)),

            (Call::Resolve(fence, record, ttl), Entry::Claim(claim))
                if claim.lease == Life::Past && claim.fence.is_none_or(|its| its == fence) =>
            {
                let by = None;
                let resolved = becomes(Entry::Record { by, record, ttl }, Answer::Done);
                // When no client knows the fence of the claim, the fence may differ.
                resolved.or_else(|| {
                    claim.fence.is_none().then_some(())?;
                    stays(Answer::Lost)
                })
            }
            // A repeated `resolve`: a store may report `Done`.
            (Call::Resolve(fence, again, _), Entry::Record { by, record, .. })
                if again == record && by.is_none_or(|(_, its)| its == fence) =>
            {
                stays(Answer::Done).or_else(|| stays(Answer::Lost))
            }
            (Call::Record(..) | Call::Resolve(..), _) => stays(Answer::Lost),
        }
    }

    fn claim(self, call: &Call, answer: Option<Answer>) -> Option<Self> {
        let Call::Claim {
            owner,
            fingerprint,
            lease,
            retention,
            rerun,
        } = *call
        else {
            return None;
        };
        let stays = |expected| answer.is_none_or(|given| given == expected).then_some(self);
        let attempt = match self.entry {
            Entry::Nothing => 1,
            Entry::Record { record, .. } => return stays(Answer::Recorded(record)),
            Entry::Claim(claim) if claim.lease != Life::Past && claim.owner == owner => {
                return match answer {
                    Some(Answer::Fresh(fence, attempt)) if attempt == claim.attempt => {
                        self.knows(claim, fence)
                    }
                    Some(_) => None,
                    None => Some(self),
                };
            }
            Entry::Claim(claim) if claim.lease != Life::Past => {
                return stays(Answer::InFlight(claim.fingerprint));
            }
            Entry::Claim(claim) if claim.fingerprint != fingerprint || !rerun => {
                return stays(Answer::Unknown(claim.fingerprint));
            }
            Entry::Claim(claim) => claim.attempt + 1,
        };
        let fence = match answer {
            Some(Answer::Fresh(fence, its)) if its == attempt && fence > self.last_fence => {
                Some(fence)
            }
            Some(_) => return None,
            None => None,
        };
        let claim = Claim {
            owner,
            fence,
            attempt,
            fingerprint,
            lease,
            retention,
        };
        Some(Self {
            last_fence: fence.unwrap_or(self.last_fence),
            entry: Entry::Claim(claim),
            freed_by: None,
            open: self.open,
        })
    }

    fn sees(self, claim: Claim, answer: Answer) -> Option<Self> {
        let is_lapsed = claim.lease == Life::Past;
        match answer {
            Answer::SeesInFlight(fingerprint, fence, attempt) if !is_lapsed => {
                let is_it = fingerprint == claim.fingerprint && attempt == claim.attempt;
                is_it.then_some(())?;
                self.knows(claim, fence)
            }
            Answer::SeesUnknown(fingerprint, fence, attempt) if is_lapsed => {
                let is_it = fingerprint == claim.fingerprint && attempt == claim.attempt;
                is_it.then_some(())?;
                self.knows(claim, fence)
            }
            _ => None,
        }
    }

    fn lists(self, claim: Claim, answer: Answer) -> Option<Self> {
        let is_lapsed = claim.lease == Life::Past;
        let fence = match answer {
            Answer::ListsInFlight(fence, attempt) if !is_lapsed && attempt == claim.attempt => {
                fence
            }
            Answer::ListsUnknown(fence, attempt) if is_lapsed && attempt == claim.attempt => fence,
            _ => return None,
        };
        self.knows(claim, fence)
    }

    /// Learns the fence of the claim, which may have been unknown until now.
    fn knows(self, claim: Claim, fence: u64) -> Option<Self> {
        match claim.fence {
            Some(known) => (known == fence).then_some(self),
            None => (fence > self.last_fence).then_some(Self {
                last_fence: fence,
                entry: Entry::Claim(Claim {
                    fence: Some(fence),
                    ..claim
                }),
                ..self
            }),
        }
    }
}
