//! The transitions of a run, and when each was acknowledged.

use std::sync::Arc;

use idem_power::Disk;
use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, Record, Settled, SqliteStore, Store, StoreFuture,
};
use test_support::servers::asking::{HOUR, claim, id, record};
use tokio::task::JoinSet;

/// Keys that run at once. Their transitions share commits.
const AT_ONCE: usize = 4;
const ROUNDS: usize = 3;

/// What the store holds under a key.
#[derive(Clone, Debug)]
enum State {
    Nothing,
    /// The number and the fence of an attempt.
    InFlight(u32, u64),
    Unknown(u32),
    Recorded(Record),
}

impl State {
    fn of(entry: Option<Entry>) -> Self {
        match entry {
            Some(Entry::InFlight { attempt, fence, .. }) => Self::InFlight(attempt, fence),
            Some(Entry::Unknown { attempt, .. }) => Self::Unknown(attempt),
            Some(Entry::Recorded { record, .. }) => Self::Recorded(record),
            _ => Self::Nothing,
        }
    }

    fn is(&self, found: &Self) -> bool {
        match (self, found) {
            (Self::Nothing, Self::Nothing) => true,
            (Self::InFlight(attempt, fence), Self::InFlight(found, found_fence)) => {
                (attempt, fence) == (found, found_fence)
            }
            (Self::Unknown(attempt), Self::Unknown(found)) => attempt == found,
            (Self::Recorded(record), Self::Recorded(found)) => record == found,
            _ => false,
        }
    }
}

/// One transition. The moments are numbers of events on the disk.
#[derive(Debug)]
struct Step {
    begun: usize,
    acknowledged: usize,
    to: State,
}

/// The transitions of one key, in order.
#[derive(Debug)]
struct Life {
    key: String,
    steps: Vec<Step>,
}

#[derive(Debug, Default)]
pub(crate) struct History(Vec<Life>);

impl History {
    /// Runs the transitions of several keys at once, again and again.
    pub(crate) async fn record(
        &mut self,
        disk: &Arc<Disk>,
        stores: &[SqliteStore],
        session: u64,
        seed: u64,
    ) {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(session));
        for round in 0..ROUNDS {
            let mut running = JoinSet::new();
            for at in 0..AT_ONCE {
                let store = stores[at % stores.len()].clone();
                let life = Life {
                    key: format!("{session}-{round}-{at}"),
                    steps: Vec::new(),
                };
                running.spawn(life.live(disk.clone(), store, random.fork()));
            }
            self.0.extend(running.join_all().await);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|life| life.steps.len()).sum()
    }

    /// How many transitions were acknowledged at this moment, and how many had begun.
    pub(crate) fn acknowledged(&self, moment: usize) -> (usize, usize) {
        let steps = || self.0.iter().flat_map(|life| &life.steps);
        let acknowledged = steps().filter(|step| step.acknowledged <= moment);
        let begun = steps().filter(|step| step.begun <= moment);
        (acknowledged.count(), begun.count())
    }

    /// Compares a store with what was acknowledged at this moment.
    pub(crate) async fn check(&self, store: &SqliteStore, moment: usize) -> Result<(), String> {
        for life in &self.0 {
            let entry = store.look_up(id(&life.key)).await;
            let found = State::of(entry.map_err(|error| format!("{}: {error}", life.key))?);
            let last = life
                .steps
                .iter()
                .rposition(|step| step.acknowledged <= moment);
            let acknowledged = last.map_or(&State::Nothing, |at| &life.steps[at].to);
            let next = life.steps.get(last.map_or(0, |at| at + 1));
            let next = next.filter(|step| step.begun <= moment);
            if !acknowledged.is(&found) && !next.is_some_and(|step| step.to.is(&found)) {
                return Err(format!(
                    "{}: {acknowledged:?} was acknowledged, and the file has {found:?}",
                    life.key
                ));
            }
        }
        let fence = win(store, claim("after the loss")).await?.0.fence;
        let steps = self.0.iter().flat_map(|life| &life.steps);
        let acknowledged = steps.filter(|step| step.acknowledged <= moment);
        let highest = acknowledged.filter_map(|step| match step.to {
            State::InFlight(_, fence) => Some(fence),
            _ => None,
        });
        match highest.max() {
            Some(highest) if highest >= fence => Err(format!(
                "fence {highest} was acknowledged, and the next claim has {fence}"
            )),
            _ => Ok(()),
        }
    }
}

async fn win(store: &SqliteStore, claim: Claim) -> Result<(Holder, u32), String> {
    let (id, owner) = (claim.id, claim.owner);
    match store.claim(claim).await {
        Ok(Claimed::Fresh { fence, attempt }) => Ok((Holder { id, owner, fence }, attempt)),
        other => Err(format!("the claim did not win: {other:?}")),
    }
}

impl Life {
    /// Claims the key, and then does one of the things that can follow.
    async fn live(
        mut self,
        disk: Arc<Disk>,
        store: SqliteStore,
        mut random: fastrand::Rng,
    ) -> Self {
        let mut holder = self.claim(&disk, &store, 1).await;
        match random.u8(..6) {
            0 => return self,
            1 => {
                let release = store.release(holder);
                self.settle(&disk, release, State::Nothing).await;
                holder = self.claim(&disk, &store, 1).await;
            }
            2 => {
                let abandon = store.abandon(holder);
                self.settle(&disk, abandon, State::Unknown(1)).await;
                holder = self.claim(&disk, &store, 2).await;
            }
            _ => {}
        }
        let record = record(&vec![b'x'; random.usize(..12_000)]);
        let complete = store.complete(holder, record.clone(), HOUR);
        self.settle(&disk, complete, State::Recorded(record)).await;
        if random.u8(..4) == 0 {
            let begun = disk.now();
            assert!(store.forget(holder.id).await.expect("the store works"));
            self.add(begun, &disk, State::Nothing);
        }
        self
    }

    async fn claim(&mut self, disk: &Disk, store: &SqliteStore, attempt: u32) -> Holder {
        let begun = disk.now();
        let won = win(store, claim(&self.key)).await;
        let (holder, number) = won.expect("nobody else has the key");
        assert_eq!(number, attempt);
        self.add(begun, disk, State::InFlight(attempt, holder.fence));
        holder
    }

    async fn settle(&mut self, disk: &Disk, transition: StoreFuture<Settled>, to: State) {
        let begun = disk.now();
        let settled = transition.await.expect("the store works");
        assert_eq!(settled, Settled::Done);
        self.add(begun, disk, to);
    }

    fn add(&mut self, begun: usize, disk: &Disk, to: State) {
        let acknowledged = disk.now();
        self.steps.push(Step {
            begun,
            acknowledged,
            to,
        });
    }
}
