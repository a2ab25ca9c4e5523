//! Random concurrent histories on a few keys. A seed determines each history.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, OnUnknown, Owner, Query, Record, RecordStatement, Settled,
    State, Store, StoreError,
};
use idem_runtime::{Fingerprint, RecordId, Scope};
use tokio::sync::Barrier;

use crate::checker::{Transition, check};
use crate::model::{Answer, Call, Held, Life};

const LONG: Duration = Duration::from_secs(3600);
const CLIENTS: usize = 6;
const KEYS: usize = 2;
const CALLS: usize = 25;

/// The number of transitions in one history.
pub(crate) const TRANSITIONS: usize = CLIENTS * CALLS;

/// Commits a transaction.
pub(crate) type Commit = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Begins a transaction and writes a record in it. Returns `None` when the database has refused the record.
pub(crate) type Recorder = Arc<
    dyn Fn(RecordStatement) -> Pin<Box<dyn Future<Output = Option<Commit>> + Send>> + Send + Sync,
>;

/// The shortest duration that a store supports.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Short {
    /// Zero, with a stopped clock: the duration is over when it starts.
    Nothing,
    /// Zero, but each thread reads the clock slightly before it acts.
    HardlyAnything,
    /// The store counts in milliseconds, and one millisecond is the minimum.
    OneMillisecond,
}

impl Short {
    fn life(self) -> Life {
        match self {
            Self::Nothing => Life::Past,
            Self::HardlyAnything | Self::OneMillisecond => Life::Soon,
        }
    }

    fn time(self, life: Life) -> Duration {
        match (life, self) {
            (Life::Long, _) => LONG,
            (_, Self::Nothing | Self::HardlyAnything) => Duration::ZERO,
            (_, Self::OneMillisecond) => Duration::from_millis(1),
        }
    }
}

/// The transitions that the clients of one run saw, for each key.
#[derive(Debug)]
pub(crate) struct History {
    seed: u64,
    keys: [Vec<Transition>; KEYS],
    /// Why transitions failed.
    pub(crate) failures: Vec<StoreError>,
}

impl History {
    /// # Errors
    ///
    /// The history of the first key that is not linearizable.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut keys = self.keys.iter();
        keys.try_for_each(|key| check(key))
            .map_err(|why| format!("seed {}: {why}", self.seed))
    }
}

/// Runs all clients on `store` at the same time.
pub(crate) async fn run(store: Arc<dyn Store>, short: Short, seed: u64) -> History {
    run_with(store, None, short, seed).await
}

/// Like `run`, with transactions.
pub(crate) async fn run_with(
    store: Arc<dyn Store>,
    recorder: Option<Recorder>,
    short: Short,
    seed: u64,
) -> History {
    let clock = Arc::new(AtomicU64::new(0));
    let start = Arc::new(Barrier::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client {
                number,
                store: store.clone(),
                recorder: recorder.clone(),
                clock: clock.clone(),
                // Each client of a seed has its own random sequence.
                random: fastrand::Rng::with_seed(seed.wrapping_mul(CLIENTS as u64) + number as u64),
                short,
                keys: std::array::from_fn(|key| Key::new(seed, key)),
                seen: std::array::from_fn(|_| Vec::new()),
                failures: Vec::new(),
            };
            let start = start.clone();
            tokio::spawn(async move {
                start.wait().await;
                client.run().await
            })
        })
        .collect();
    let mut history = History {
        seed,
        keys: std::array::from_fn(|_| Vec::new()),
        failures: Vec::new(),
    };
    for client in clients {
        let client = client.await.expect("a client panicked");
        history.failures.extend(client.failures);
        for (key, seen) in history.keys.iter_mut().zip(client.seen) {
            key.extend(seen);
        }
    }
    history
}

struct Client {
    number: usize,
    store: Arc<dyn Store>,
    recorder: Option<Recorder>,
    clock: Arc<AtomicU64>,
    random: fastrand::Rng,
    short: Short,
    keys: [Key; KEYS],
    seen: [Vec<Transition>; KEYS],
    failures: Vec<StoreError>,
}

/// The knowledge of one client about one key.
struct Key {
    id: RecordId,
    /// The claims that the client has ever won.
    won: Vec<Held>,
    /// The client's last claim, which it may repeat.
    claimed: Option<Call>,
    /// The client's last completion, which it may repeat.
    completed: Option<Call>,
    /// The last fence that the client saw as an operator.
    fence: u64,
}

impl Key {
    fn new(seed: u64, key: usize) -> Self {
        let scope = Scope::new().value(seed).value(std::process::id());
        Self {
            id: RecordId::new("linear", &scope, &key.to_string()),
            won: Vec::new(),
            claimed: None,
            completed: None,
            fence: 0,
        }
    }
}

impl Client {
    async fn run(mut self) -> Self {
        for _ in 0..CALLS {
            let key = self.random.usize(..KEYS);
            let call = self.draw(key);
            if self.random.bool() {
                tokio::task::yield_now().await;
            }
            if let Call::Record(held, record, ttl) = call {
                self.in_transaction(key, held, record, ttl).await;
                continue;
            }
            let called_at = self.clock.fetch_add(1, Ordering::SeqCst);
            let answer = ask(&*self.store, self.keys[key].id, call, self.short).await;
            let answered_at = self.clock.fetch_add(1, Ordering::SeqCst);
            let answer = answer.map_err(|failure| self.failures.push(failure)).ok();
            self.keys[key].learn(call, answer);
            self.seen[key].push(Transition {
                client: self.number,
                called_at,
                answered_at,
                call,
                answer,
            });
        }
        self
    }

    /// Writes a record in a transaction, and commits the transaction a moment later.
    async fn in_transaction(&mut self, key: usize, held: Held, record: u32, ttl: Life) {
        let (owner, fence) = held;
        let id = self.keys[key].id;
        let holder = Holder { id, owner, fence };
        let time = self.short.time(ttl);
        let statement = self.store.record_statement(holder, numbered(record), time);
        let recorder = self.recorder.clone().expect("drawn only with transactions");
        let called_at = self.clock.fetch_add(1, Ordering::SeqCst);
        let commit = recorder(statement.expect("the store has transactions")).await;
        let answer = commit.as_ref().map_or(Answer::Lost, |_| Answer::Done);
        self.note(key, Call::Record(held, record, ttl), called_at, answer);
        let Some(commit) = commit else {
            return;
        };
        tokio::time::sleep(Duration::from_millis(self.random.u64(..4))).await;
        let called_at = self.clock.fetch_add(1, Ordering::SeqCst);
        commit.await;
        self.note(key, Call::Commit(held), called_at, Answer::Done);
        // The engine settles nothing after a commit.
        self.keys[key].won.retain(|won| *won != held);
        self.keys[key].completed = None;
    }

    fn note(&mut self, key: usize, call: Call, called_at: u64, answer: Answer) {
        let answered_at = self.clock.fetch_add(1, Ordering::SeqCst);
        self.seen[key].push(Transition {
            client: self.number,
            called_at,
            answered_at,
            call,
            answer: Some(answer),
        });
    }

    fn life(&mut self, short_share: f64) -> Life {
        if self.random.f64() < short_share {
            self.short.life()
        } else {
            Life::Long
        }
    }

    fn draw(&mut self, number: usize) -> Call {
        let drawn = self.random.u8(..100);
        let lease = self.life(0.4);
        let retention = self.life(0.2);
        let record = self.random.u32(..);
        if self.recorder.is_some() {
            return self.draw_with_transactions(number, drawn, lease, record);
        }
        let key = &self.keys[number];
        let mine = self.random.choice(&key.won).copied();
        // Usually the last claim, because the earlier claims are settled or lost.
        let mine = match key.won.last() {
            Some(last) if self.random.u8(..4) > 0 => Some(*last),
            _ => mine,
        };
        let (claimed, completed, fence) = (key.claimed, key.completed, key.fence);
        match (drawn, mine) {
            (0..6, _) => Call::LookUp,
            (6..9, _) => Call::List,
            (9..14, _) => Call::Forget,
            (14..20, _) => Call::Resolve(fence, record, lease),
            (20..28, Some(held)) => Call::Renew(held, lease),
            (28..46, Some(held)) => match completed {
                Some(again) if self.random.u8(..4) == 0 => again,
                _ => Call::Complete(held, record, lease),
            },
            (46..54, Some(held)) => Call::Release(held),
            (54..62, Some(held)) => Call::Abandon(held),
            _ => match claimed {
                Some(again) if self.random.u8(..4) == 0 => again,
                _ => Call::Claim {
                    owner: Owner::unique(),
                    fingerprint: if self.random.u8(..5) == 0 { 2 } else { 1 },
                    lease,
                    retention,
                    rerun: self.random.u8(..5) > 0,
                },
            },
        }
    }
}

impl Client {
    /// A transaction may be open for longer than any claim or record is kept, and nothing can refuse its record then.
    /// So no claim and no record expires here, and none is released or forgotten.
    fn draw_with_transactions(
        &mut self,
        number: usize,
        drawn: u8,
        lease: Life,
        record: u32,
    ) -> Call {
        let key = &self.keys[number];
        let mine = match self.random.choice(&key.won).copied() {
            Some(_) if self.random.u8(..4) > 0 => key.won.last().copied(),
            earlier => earlier,
        };
        match (drawn, mine) {
            (0..6, _) => Call::LookUp,
            (6..9, _) => Call::List,
            (9..15, _) => Call::Resolve(key.fence, record, Life::Long),
            (15..25, Some(held)) => Call::Renew(held, lease),
            (25..40, Some(held)) => Call::Record(held, record, Life::Long),
            (40..50, Some(held)) => match key.completed {
                Some(again) if self.random.u8(..4) == 0 => again,
                _ => Call::Complete(held, record, Life::Long),
            },
            (50..60, Some(held)) => Call::Abandon(held),
            _ => Call::Claim {
                owner: Owner::unique(),
                fingerprint: 1,
                lease,
                retention: Life::Long,
                rerun: self.random.u8(..5) > 0,
            },
        }
    }
}

impl Key {
    fn learn(&mut self, call: Call, answer: Option<Answer>) {
        match call {
            Call::Claim { owner, .. } => {
                self.claimed = Some(call);
                if let Some(Answer::Fresh(fence, _)) = answer {
                    self.won.push((owner, fence));
                    self.fence = fence;
                }
            }
            Call::Complete(..) => self.completed = Some(call),
            _ => {}
        }
        if let Some(Answer::SeesInFlight(_, fence, _) | Answer::SeesUnknown(_, fence, _)) = answer {
            self.fence = fence;
        }
    }
}

async fn ask(
    store: &dyn Store,
    id: RecordId,
    call: Call,
    short: Short,
) -> Result<Answer, StoreError> {
    let time = |life| short.time(life);
    let holder = |(owner, fence)| Holder { id, owner, fence };
    Ok(match call {
        Call::Claim {
            owner,
            fingerprint,
            lease,
            retention,
            rerun,
        } => {
            let fingerprint = Fingerprint::from_bytes([fingerprint; 32]);
            let mut claim = Claim::new(id, fingerprint, time(lease), time(retention));
            claim.owner = owner;
            if !rerun {
                claim.on_unknown = OnUnknown::Hold;
            }
            match store.claim(claim).await? {
                Claimed::Fresh { fence, attempt } => Answer::Fresh(fence, attempt),
                Claimed::InFlight { fingerprint, .. } => Answer::InFlight(short_of(fingerprint)),
                Claimed::Unknown { fingerprint } => Answer::Unknown(short_of(fingerprint)),
                Claimed::Recorded { record, .. } => Answer::Recorded(number_of(&record)),
                _ => Answer::Full,
            }
        }
        Call::Renew(held, lease) => settled(store.renew(holder(held), time(lease)).await?),
        Call::Complete(held, record, ttl) => {
            let record = numbered(record);
            settled(store.complete(holder(held), record, time(ttl)).await?)
        }
        Call::Record(..) | Call::Commit(_) => unreachable!("not a call of the store"),
        Call::Release(held) => settled(store.release(holder(held)).await?),
        Call::Abandon(held) => settled(store.abandon(holder(held)).await?),
        Call::LookUp => match store.look_up(id).await? {
            Some(Entry::InFlight {
                fingerprint,
                fence,
                attempt,
                ..
            }) => Answer::SeesInFlight(short_of(fingerprint), fence, attempt),
            Some(Entry::Unknown {
                fingerprint,
                fence,
                attempt,
                ..
            }) => Answer::SeesUnknown(short_of(fingerprint), fence, attempt),
            Some(Entry::Recorded { record, .. }) => Answer::Recorded(number_of(&record)),
            _ => Answer::SeesNothing,
        },
        Call::List => listed(store, id).await?,
        Call::Forget => Answer::WasThere(store.forget(id).await?),
        Call::Resolve(fence, record, ttl) => {
            let record = numbered(record);
            settled(store.resolve(id, fence, record, time(ttl)).await?)
        }
    })
}

/// What all pages together show of one of the keys.
async fn listed(store: &dyn Store, id: RecordId) -> Result<Answer, StoreError> {
    let mut query = Query::all().scope(id.scope_id()).limit(1);
    let mut seen = Answer::SeesNothing;
    loop {
        let page = store.list(query.clone()).await?;
        for entry in page.entries.iter().filter(|entry| entry.id == id) {
            seen = match (&entry.state, seen) {
                (State::InFlight { fence, attempt, .. }, Answer::SeesNothing) => {
                    Answer::ListsInFlight(*fence, *attempt)
                }
                (State::Unknown { fence, attempt, .. }, Answer::SeesNothing) => {
                    Answer::ListsUnknown(*fence, *attempt)
                }
                (State::Recorded { .. }, Answer::SeesNothing) => Answer::ListsRecord,
                _ => Answer::ListsTwice,
            };
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok(seen),
        }
    }
}

fn settled(settled: Settled) -> Answer {
    match settled {
        Settled::Done => Answer::Done,
        Settled::Lost => Answer::Lost,
    }
}

fn short_of(fingerprint: Fingerprint) -> u8 {
    fingerprint.as_bytes()[0]
}

/// All records have the fingerprint of all claims, because a near cache stores no others.
fn numbered(number: u32) -> Record {
    let fingerprint = Fingerprint::from_bytes([1; 32]);
    let body = number.to_string();
    let headers = HeaderMap::new();
    Record::answer(fingerprint, StatusCode::OK, &headers, body.as_bytes()).expect("it fits")
}

fn number_of(record: &Record) -> u32 {
    let body = record.body();
    let text = std::str::from_utf8(&body).expect("a number");
    text.parse().expect("a number")
}
