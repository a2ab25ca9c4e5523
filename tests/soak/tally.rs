//! Counts what happened and measures the memory of the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// More keys than a soak of an hour needs.
const KEYS: usize = 32 << 20;

/// How often each key ran. All counters are allocated at the start, so they do not count as growth.
pub(crate) struct Runs {
    counts: Box<[AtomicU8]>,
    next: AtomicUsize,
}

impl Default for Runs {
    fn default() -> Self {
        // Writes to the memory, so that the operating system does not only reserve it.
        let zero = std::hint::black_box(0);
        let counts: Vec<_> = (0..KEYS).map(|_| AtomicU8::new(zero)).collect();
        Self {
            counts: counts.into(),
            next: AtomicUsize::new(0),
        }
    }
}

impl Runs {
    pub(crate) fn new_key(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn count(&self, key: &str) {
        let key: usize = key.parse().expect("a number");
        self.counts[key].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn of(&self, key: usize) -> u8 {
        self.counts[key].load(Ordering::SeqCst)
    }
}

pub(crate) struct Tally {
    pub(crate) runs: Arc<Runs>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// The memory of the process at each second since the start.
    memory: Mutex<Vec<(u64, usize)>>,
    is_over: AtomicBool,
}

impl Tally {
    pub(crate) fn new(runs: Arc<Runs>) -> Self {
        Self {
            runs,
            counts: Mutex::default(),
            memory: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self
            .counts
            .lock()
            .expect("no panic")
            .entry(what)
            .or_default() += 1;
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Measures the memory of the process, and prints it at growing intervals.
    pub(crate) fn look(&self, elapsed: Duration) {
        let resident = resident_bytes();
        let mut memory = self.memory.lock().expect("no panic");
        let seconds = elapsed.as_secs();
        let is_shown = |second: u64| second.is_multiple_of(if second < 60 { 5 } else { 60 });
        if is_shown(seconds) && memory.last().is_none_or(|(last, _)| *last != seconds) {
            println!("{seconds:>5} s {:>5} MiB", resident >> 20);
        }
        memory.push((seconds, resident));
    }

    pub(crate) fn report(&self, elapsed: Duration) {
        println!("{CLIENTS_SAW} {} s:", elapsed.as_secs());
        for (what, count) in &*self.counts.lock().expect("no panic") {
            println!("{count:>10} {what}");
        }
    }

    /// Panics when a key ran twice, when an expected event did not happen, or when the process has
    /// grown.
    pub(crate) fn check(&self, has_plateau: bool) {
        let keys = self.runs.next.load(Ordering::SeqCst);
        let twice: Vec<_> = (0..keys).filter(|key| self.runs.of(*key) > 1).collect();
        assert!(twice.is_empty(), "keys that ran twice: {twice:?}");
        let counts = self.counts.lock().expect("no panic");
        for what in ["runs", "replays", "mismatches", "disconnects"] {
            assert!(
                counts.get(what).is_some_and(|count| *count > 0),
                "no {what}: {counts:?}"
            );
        }
        if !has_plateau {
            return;
        }
        assert!(
            counts.contains_key("refused: full"),
            "the memory store was never full: {counts:?}"
        );
        assert!(
            counts.contains_key("refused: store away"),
            "Redis was never unreachable: {counts:?}"
        );
        let memory = self.memory.lock().expect("no panic");
        let most = |of: std::ops::Range<usize>| {
            let part = &memory[of.start * memory.len() / 6..of.end * memory.len() / 6];
            part.iter()
                .map(|(_, resident)| *resident)
                .max()
                .expect("at least one measurement")
        };
        let (plateau, end) = (most(2..4), most(4..6));
        println!(
            "at most {} MiB in the middle third and {} MiB in the last third",
            plateau >> 20,
            end >> 20
        );
        assert!(
            end <= plateau + plateau / 20,
            "the process has grown from {plateau} to {end} bytes"
        );
    }
}

const CLIENTS_SAW: &str = "clients saw in";

/// The resident set of this process, including the clients.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}
