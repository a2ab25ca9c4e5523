//! What really happened, and whether it may.

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
    /// Since when nothing goes wrong any more, by the simulation's clock.
    calm_since: Option<Duration>,
}

#[derive(Default)]
struct Key {
    /// The fences that the store gave.
    given: BTreeSet<u64>,
    /// The claim that holds, by the store's clock.
    held: Option<(u64, Instant)>,
    is_recorded: bool,
    /// The fence of each run that has begun.
    runs: BTreeSet<u64>,
    /// The fence of each effect.
    effects: Vec<u64>,
    is_held_when_unknown: bool,
}

impl Oracle {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        // What it finds in a host's task poisons it, and so ends the simulation.
        self.0
            .lock()
            .expect("a promise was broken, as printed above")
    }

    /// The store gave a claim, for the first time or again.
    pub(crate) fn claimed(&self, id: RecordId, fence: u64, lease: Duration) {
        let mut seen = self.lock();
        let key = seen.keys.entry(id).or_default();
        assert!(!key.is_recorded, "{id}: a claim beside a record");
        match key.held {
            Some((held, _)) if held == fence => return,
            Some((held, until)) => assert!(
                until <= Instant::now(),
                "{id}: claim {fence} while {held} holds"
            ),
            None => {}
        }
        let last = key.given.last().copied();
        assert!(last < Some(fence), "{id}: fence {fence} after {last:?}");
        key.given.insert(fence);
        key.held = Some((fence, Instant::now() + lease));
    }

    pub(crate) fn renewed(&self, holder: Holder, lease: Duration) {
        let until = Instant::now() + lease;
        self.with(holder, |key| key.held = Some((holder.fence, until)));
    }

    pub(crate) fn completed(&self, holder: Holder) {
        self.with(holder, |key| {
            assert!(!key.is_recorded, "{}: a second record", holder.id);
            key.is_recorded = true;
            key.held = None;
        });
    }

    /// No answer of this service is released, so what is has not run.
    pub(crate) fn released(&self, holder: Holder) {
        self.with(holder, |key| {
            let has_run = key.runs.contains(&holder.fence);
            assert!(!has_run, "{}: released in its run", holder.id);
            key.held = None;
        });
    }

    pub(crate) fn abandoned(&self, holder: Holder) {
        self.with(holder, |key| key.held = None);
    }

    /// Nothing goes wrong any more.
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
        assert!(key.given.contains(&fence), "{id}: a run without a claim");
        assert!(key.runs.insert(fence), "{id}: claim {fence} runs twice");
    }

    /// It has had its effect.
    pub(crate) fn effect(&self, id: RecordId, fence: u64) {
        let mut seen = self.lock();
        let key = seen.keys.entry(id).or_default();
        key.effects.push(fence);
    }

    /// A handler runs whose key is held when its outcome is unknown.
    pub(crate) fn holds(&self, id: RecordId) {
        self.lock().keys.entry(id).or_default().is_held_when_unknown = true;
    }

    /// A client has its answer.
    pub(crate) fn answered(&self, client: usize, key: usize, text: &str, is_replay: bool) {
        let mut seen = self.lock();
        let answers = seen.answers.entry((client, key)).or_default();
        answers.push((text.to_owned(), is_replay));
    }

    /// Looks at everything when it is over, and counts keys, effects and replays.
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
                "seed {seed}: {id} is held when unknown, and had {count} effects"
            );
            assert!(
                count == 1 || with_faults,
                "seed {seed}: {id} had {count} effects although nothing went wrong"
            );
        }
        for ((client, key), answers) in &all.answers {
            let scope = Scope::new().token(format!("Bearer {client}"));
            let id = names.record_id(&scope, &key.to_string());
            let entry = vault
                .store
                .look_up(id)
                .now_or_never()
                .expect("memory answers at once");
            let Ok(Some(Entry::Recorded { record, .. })) = entry else {
                // Its own client was told, and then the process died with the record unwritten.
                let is_unknown = all.keys[&id].is_held_when_unknown && !all.keys[&id].is_recorded;
                let is_own = answers.iter().all(|(_, is_replay)| !is_replay);
                assert!(
                    is_unknown && is_own,
                    "seed {seed}: {answers:?} without a record: {entry:?}"
                );
                continue;
            };
            let stored = String::from_utf8_lossy(&record.body()).into_owned();
            for (text, _) in answers.iter().filter(|(_, is_replay)| *is_replay) {
                tally.replays += 1;
                assert_eq!(*text, stored, "seed {seed}: a replay is not the record");
            }
            // Whoever ran last has recorded: a fence before its own settles nothing.
            let last = all.keys[&id].runs.last();
            let (_, fence) = stored.rsplit_once(' ').expect("an answer");
            assert_eq!(
                Some(fence),
                last.map(ToString::to_string).as_deref(),
                "seed {seed}: the record of {id} is not of its last run"
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
            "{}: an old fence took effect",
            holder.id
        );
        change(key);
    }
}
