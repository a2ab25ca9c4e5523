//! Records what happened, and checks that it was permitted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum_idem::store::{Entry, Holder, Store};
use axum_idem::{Idempotency, RecordId, Scope};
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::Tally;
use crate::store_host::Vault;

#[derive(Clone, Default)]
pub(crate) struct Oracle(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    keys: HashMap<RecordId, Key>,
    answers: BTreeMap<(usize, usize), Vec<(String, bool)>>,
    /// The time of the simulation since which no fault occurs.
    calm_since: Option<Duration>,
}

#[derive(Default)]
struct Key {
    /// The fences that the store granted.
    given: BTreeSet<u64>,
    /// The current claim, with its end by the store's clock.
    held: Option<(u64, Instant)>,
    is_recorded: bool,
    /// The fence of each run that has begun.
    runs: BTreeSet<u64>,
    /// The fence of each effect.
    effects: Vec<u64>,
    /// The fence of each run whose transaction a layer has committed.
    commits: BTreeSet<u64>,
    is_held_when_unknown: bool,
}

impl Oracle {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A failed check in the task of a host poisons the lock. The next caller then ends the simulation.
        self.0
            .lock()
            .expect("a promise was broken, as printed above")
    }

    /// The store granted a claim, for the first time or again.
    pub(crate) fn claimed(&self, id: RecordId, fence: u64, lease: Duration) {
        let mut seen = self.lock();
        let key = seen.keys.entry(id).or_default();
        assert!(
            !key.is_recorded,
            "{id}: a claim was granted although there is a record"
        );
        match key.held {
            Some((held, _)) if held == fence => return,
            Some((held, until)) => assert!(
                until <= Instant::now(),
                "{id}: claim {fence} was granted while claim {held} is valid"
            ),
            None => {}
        }
        let last = key.given.last().copied();
        assert!(
            last < Some(fence),
            "{id}: fence {fence} was granted after {last:?}"
        );
        key.given.insert(fence);
        key.held = Some((fence, Instant::now() + lease));
    }

    pub(crate) fn renewed(&self, holder: Holder, lease: Duration) {
        let until = Instant::now() + lease;
        self.with(holder, |key| key.held = Some((holder.fence, until)));
    }

    pub(crate) fn completed(&self, holder: Holder) {
        self.with(holder, |key| {
            assert!(
                !key.is_recorded,
                "{}: a second record was written",
                holder.id
            );
            // A later claim may settle with the response of an earlier run.
            assert!(
                key.commits.iter().any(|fence| *fence <= holder.fence),
                "{}: a record was written before the layer has committed",
                holder.id
            );
            key.is_recorded = true;
            key.held = None;
        });
    }

    /// This service releases no response, so a released key must not have run.
    pub(crate) fn released(&self, holder: Holder) {
        self.with(holder, |key| {
            let has_run = key.runs.contains(&holder.fence);
            assert!(
                !has_run,
                "{}: the key was released although its handler ran",
                holder.id
            );
            key.held = None;
        });
    }

    pub(crate) fn abandoned(&self, holder: Holder) {
        self.with(holder, |key| key.held = None);
    }

    /// No more faults occur.
    pub(crate) fn healed(&self, at: Duration) {
        self.lock().calm_since = Some(at);
    }

    pub(crate) fn calm_since(&self) -> Option<Duration> {
        self.lock().calm_since
    }

    /// A handler begins.
    pub(crate) fn begins(&self, id: RecordId, fence: u64) {
        let mut seen = self.lock();
        let key = seen.keys.entry(id).or_default();
        assert!(
            key.given.contains(&fence),
            "{id}: a handler runs without a claim"
        );
        assert!(key.runs.insert(fence), "{id}: claim {fence} runs twice");
    }

    /// A handler has had its effect.
    pub(crate) fn effect(&self, id: RecordId, fence: u64) {
        let mut seen = self.lock();
        let key = seen.keys.entry(id).or_default();
        key.effects.push(fence);
    }

    /// A layer has committed the transaction of a run.
    pub(crate) fn committed(&self, id: RecordId, fence: u64) {
        let mut seen = self.lock();
        let key = seen.keys.entry(id).or_default();
        key.commits.insert(fence);
    }

    /// A handler with `on_unknown = hold` runs for this key.
    pub(crate) fn holds(&self, id: RecordId) {
        self.lock().keys.entry(id).or_default().is_held_when_unknown = true;
    }

    /// A client got its response.
    pub(crate) fn answered(&self, client: usize, key: usize, text: &str, is_replay: bool) {
        let mut seen = self.lock();
        let answers = seen.answers.entry((client, key)).or_default();
        answers.push((text.to_owned(), is_replay));
    }

    /// Checks everything at the end. Counts keys, effects and replays.
    pub(crate) fn judge(&self, seed: u64, vault: &Vault, with_faults: bool) -> Tally {
        let all = self.lock();
        let names = Idempotency::in_memory();
        let mut tally = Tally {
            keys: all.keys.len(),
            ..Tally::default()
        };
        for (id, key) in &all.keys {
            let count = key.effects.len();
            tally.runs += count;
            tally.reruns += count.saturating_sub(1);
            assert!(
                count <= 1 || !key.is_held_when_unknown,
                "seed {seed}: {id} has `on_unknown = hold` and {count} effects"
            );
            assert!(
                count == 1 || with_faults,
                "seed {seed}: {id} has {count} effects although no fault occurred"
            );
        }
        for ((client, key), answers) in &all.answers {
            let scope = Scope::new().token(format!("Bearer {client}"));
            let id = names.record_id(&scope, &key.to_string());
            let entry = vault
                .shown
                .look_up(id)
                .now_or_never()
                .expect("the memory store is ready at once");
            let Ok(Some(Entry::Recorded { record, .. })) = entry else {
                // The client got its response, and then the process died before it wrote the record.
                let is_unknown = all.keys[&id].is_held_when_unknown && !all.keys[&id].is_recorded;
                let is_own = answers.iter().all(|(_, is_replay)| !is_replay);
                assert!(
                    is_unknown && is_own,
                    "seed {seed}: {answers:?} were sent without a record: {entry:?}"
                );
                continue;
            };
            let stored = String::from_utf8_lossy(&record.body()).into_owned();
            for (text, _) in answers.iter().filter(|(_, is_replay)| *is_replay) {
                tally.replays += 1;
                assert_eq!(
                    *text, stored,
                    "seed {seed}: a replay differs from the record"
                );
            }
            // The last run has recorded its response. A run with an older fence cannot settle.
            let last = all.keys[&id].runs.last();
            let (_, fence) = stored.rsplit_once(' ').expect("a response with a fence");
            assert_eq!(
                Some(fence),
                last.map(ToString::to_string).as_deref(),
                "seed {seed}: the record of {id} is not that of its last run"
            );
        }
        tally
    }

    fn with(&self, holder: Holder, change: impl FnOnce(&mut Key)) {
        let mut seen = self.lock();
        let key = seen.keys.entry(holder.id).or_default();
        let last = key.given.last().copied();
        assert_eq!(
            last,
            Some(holder.fence),
            "{}: the store accepted an old fence",
            holder.id
        );
        change(key);
    }
}
