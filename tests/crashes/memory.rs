//! Tests every path on the memory store with a paused clock, once directly and once through a
//! `FaultStore` that makes each store call wait.

use std::time::Duration;

#[cfg(feature = "seal")]
use axum_idem::store::{Keys, Sealed};
use axum_idem::store::{MemoryStore, StateKind, Store};
use axum_idem::testing::FaultStore;
use test_support::listing::only_state;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cut::{Cut, Waiting};
use crate::shop::{Answer, Effects, Shop};
use crate::ways::{BODY, Before, FAULTY_WAYS, WAYS, Way};

const LEASE: Duration = Duration::from_secs(30);
/// How long the other request runs.
const WHILE: Duration = Duration::from_secs(2);
/// No path waits more often than this.
const MOST_WAITS: usize = 500;

/// The store that a scene uses.
trait Stage: Store + Clone {
    fn open() -> Self;

    fn fail(&self, _way: &Way) {}

    fn heal(&self) {}
}

impl Stage for MemoryStore {
    fn open() -> Self {
        Self::default()
    }
}

#[cfg(feature = "seal")]
impl Stage for Sealed<MemoryStore> {
    fn open() -> Self {
        Self::around(MemoryStore::default(), Keys::new().primary(1, [1; 32]))
    }
}

impl<S: Stage> Stage for FaultStore<S> {
    fn open() -> Self {
        Self::new(S::open())
    }

    fn fail(&self, way: &Way) {
        for (operation, fault) in way.faults {
            self.script(*operation, [*fault]);
        }
    }

    fn heal(&self) {
        FaultStore::heal(self);
    }
}

#[test]
fn promises_hold_when_a_request_is_cut_off_at_any_await() {
    let cuts: usize = WAYS.into_iter().map(cut_everywhere::<MemoryStore>).sum();
    println!("{} ways, {cuts} cuts", WAYS.len());
}

#[test]
fn promises_hold_when_a_request_is_cut_off_at_any_store_call() {
    let ways = WAYS.into_iter().chain(FAULTY_WAYS);
    let cuts: usize = ways.map(cut_everywhere::<FaultStore<MemoryStore>>).sum();
    println!("{} ways, {cuts} cuts", WAYS.len() + FAULTY_WAYS.len());
}

#[cfg(feature = "seal")]
#[test]
fn promises_hold_with_a_sealed_store_when_a_request_is_cut_off_at_any_store_call() {
    let ways = WAYS.into_iter().chain(FAULTY_WAYS);
    let cuts: usize = ways
        .map(cut_everywhere::<FaultStore<Sealed<MemoryStore>>>)
        .sum();
    println!("{} ways, {cuts} cuts", WAYS.len() + FAULTY_WAYS.len());
}

/// Cuts a request off at its first wait, at its second wait, and so on, until the request finishes
/// first. Returns the number of cuts.
fn cut_everywhere<S: Stage>(way: Way) -> usize {
    let mut cuts = 0;
    for cut in Cut::ALL {
        let was_cut = |waits: &usize| {
            let scene = Scene {
                way,
                cut,
                waits: *waits,
                store: S::open(),
                effects: Effects::default(),
            };
            scene.play()
        };
        let times = (1..MOST_WAITS).take_while(was_cut).count();
        let is_all = (2..MOST_WAITS - 1).contains(&times);
        assert!(is_all, "{}: {times} waits", way.name);
        cuts += times;
    }
    cuts
}

struct Scene<S> {
    way: Way,
    cut: Cut,
    waits: usize,
    store: S,
    effects: Effects,
}

fn process() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    builder.build().expect("a tokio runtime")
}

impl<S: Stage> Scene<S> {
    /// Returns whether the request was cut off. The request may also finish before the cut.
    fn play(&self) -> bool {
        let first = process();
        let before = first.block_on(self.before());
        self.store.fail(&self.way);
        if self.way.panics {
            self.effects.panic_next();
        }
        let mut request = Box::pin(self.shop().post(self.way.path, BODY));
        let waiting = Waiting {
            future: &mut request,
            waits: self.waits,
        };
        let (answer, cut_at) = first.block_on(async { (waiting.await, Instant::now()) });
        let process = match self.cut {
            Cut::Disconnect => {
                let in_first = first.enter();
                drop(request);
                drop(in_first);
                first
            }
            Cut::Shutdown => {
                drop(first);
                drop(request);
                process()
            }
            Cut::Kill => {
                std::mem::forget((first, request));
                process()
            }
        };
        if self.dies() {
            self.effects.open_gate();
        }
        process.block_on(self.after(answer.as_ref(), before.as_ref(), cut_at));
        answer.is_none()
    }

    fn dies(&self) -> bool {
        self.cut != Cut::Disconnect
    }

    fn shop(&self) -> Shop {
        Shop::open(self.store.clone(), LEASE, &self.effects)
    }

    async fn before(&self) -> Option<Answer> {
        let path = self.way.path;
        match self.way.before {
            Before::Nothing => None,
            Before::Answered(body) => Some(self.shop().post(path, body).await),
            Before::CutOff => {
                self.effects.panic_next();
                Some(self.shop().post(path, BODY).await)
            }
            Before::Runs => {
                self.effects.close_gate();
                tokio::spawn(self.shop().post(path, BODY));
                while self.effects.count() == 0 {
                    tokio::task::yield_now().await;
                }
                let effects = self.effects.clone();
                tokio::spawn(async move {
                    sleep(WHILE).await;
                    effects.open_gate();
                });
                None
            }
        }
    }

    async fn after(&self, answer: Option<&Answer>, before: Option<&Answer>, cut_at: Instant) {
        // The clock of another process may be behind.
        sleep_until(cut_at).await;
        // Background tasks still meet the remaining faults.
        sleep(WHILE).await;
        self.store.heal();
        // An operator who looks meanwhile sees one key, in one state.
        only_state(&self.store).await;
        let Way { path, retried, .. } = self.way;
        let shop = self.shop();
        let retry = loop {
            let retry = shop.clone().post(path, BODY).await;
            if retry.code.as_deref() != Some("idempotency_key_in_flight") {
                break retry;
            }
            sleep(WHILE / 2).await;
        };
        let state = only_state(&self.store).await;
        if retry.is_replay {
            assert_eq!(state, Some(StateKind::Recorded), "{}", self.way.name);
        }
        let took = cut_at.elapsed();
        self.must(took <= LEASE + 2 * WHILE, || {
            format!("the key was unusable for {took:?}")
        });
        let code = retry.code.as_deref().unwrap_or_default();
        let is_expected = retried.contains(&(retry.status, code));
        self.must(is_expected, || format!("a retry got {retry:?}"));

        let effects = self.effects.count();
        let most = self.way.effects[usize::from(self.dies())];
        self.must(effects <= most, || format!("{effects} effects"));
        let fences = self.effects.fences();
        let is_growing = fences.first() != Some(&0) && fences.is_sorted_by(|a, b| a < b);
        self.must(is_growing, || {
            format!("the fences must grow, and are {fences:?}")
        });

        if let Some(told) = answer {
            self.must(told.status == self.way.told, || {
                format!("the first response was {told:?}")
            });
        }
        // A retry gets the same response that the client got.
        let is_told = answer.filter(|told| told.status == 201);
        let may_be_lost = self.dies() && !self.way.faults.is_empty();
        if let Some(told) = is_told.filter(|_| !may_be_lost) {
            self.must(retry.is_replay && retry.text == told.text, || {
                format!("the first response was {told:?}, and the retry got {retry:?}")
            });
        }
        if let (Before::Answered(body), Some(stored)) = (self.way.before, before) {
            let replay = shop.clone().post(path, body).await;
            self.must(replay.is_replay && replay.text == stored.text, || {
                format!("the record was {stored:?}, and the replay is {replay:?}")
            });
        }
        if retry.status == 201 {
            self.must(effects > 0, || "a 201 without an effect".to_owned());
            let again = shop.post(path, BODY).await;
            self.must(again.is_replay && again.text == retry.text, || {
                format!("the first retry got {retry:?}, and the second retry got {again:?}")
            });
        }
    }

    fn must(&self, holds: bool, what: impl FnOnce() -> String) {
        let Self {
            way, cut, waits, ..
        } = self;
        assert!(holds, "{}, {cut:?} at wait {waits}: {}", way.name, what());
    }
}
