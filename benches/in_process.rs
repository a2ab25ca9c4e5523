//! Measures the time of a request in process as a ratio to bare axum: `cargo bench --bench in_process`.
//!
//! The paths are measured in turn, in many short rounds of one run, so that other work on the machine
//! affects all paths equally. The output is the median of the ratios of all rounds, with its quartiles. The
//! last lines of each size compare with what is possible: see `measure/compact.rs`.
//! `ROUNDS` (300) sets the number of rounds, and `RECORDS` (none) the number of records in the store.
//! `FULL=1` uses a full store that evicts its oldest record for each new record.

mod measure;

use std::time::{Duration, Instant};

use axum_idem::store::{MemoryStore, OnFull};

use measure::contenders::{Contender, body, protected};
use measure::paths::paths;
use measure::{median, ratios, setting};

/// Requests of each path in a round. Most paths keep their responses, which are as long as the bodies.
const fn per_round(size: usize) -> u64 {
    if size > 100_000 { 20 } else { 200 }
}

async fn round(path: &Contender, round: u64, body: &str) -> f64 {
    let per_round = per_round(body.len());
    let numbers = round * per_round..(round + 1) * per_round;
    let requests: Vec<_> = numbers.map(|n| path.request(n, body)).collect();
    let begun = Instant::now();
    for request in requests {
        path.serve(request).await;
    }
    begun.elapsed().as_secs_f64()
}

/// Pairs of paths whose ratio is printed: a path of the library, and the path that it is compared with.
const POSSIBLE: [[&str; 2]; 9] = [
    ["no key", "bare, identity layer"],
    ["first sight", "first sight, compact"],
    ["first sight", "first sight, layer"],
    ["first sight", "first sight, maps"],
    ["first sight, no layer", "first sight, compact"],
    ["replay", "replay, compact"],
    ["replay", "replay, layer"],
    ["replay", "replay, maps"],
    ["replay, no layer", "replay, compact"],
];

/// Keys that no path of the bench uses.
const FILLERS: u64 = 1 << 40;

/// The number of records that a full store can hold. One run evicts fewer records, so the replayed
/// records stay.
const ROOM: usize = 80_000;

fn shown(own: &[f64], other: &[f64]) -> String {
    let [low, median, high] = ratios(own, other);
    format!("{median:.2}  ({low:.2} to {high:.2})")
}

async fn store_with(records: u64, size: Option<usize>) -> MemoryStore {
    let store = MemoryStore::builder()
        .max_bytes(size.map_or(16 << 30, |size| ROOM * (size + 600)))
        .max_share(1.0)
        .on_full(OnFull::EvictOldest)
        .build();
    let path = Contender::new("fill", protected(store.clone()), Some);
    let body = body(size.unwrap_or(200));
    let mut n = 0;
    while n < records || size.is_some() && store.evicted() == 0 {
        path.serve(path.request(FILLERS + n, &body)).await;
        n += 1;
    }
    store
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds = setting("ROUNDS", 300);
    let is_full = setting("FULL", 0) == 1;
    let sizes = [200, 2 << 10, 16 << 10, 1 << 20];
    // A full store of long responses would need too much memory.
    let sizes = &sizes[..if is_full { 3 } else { 4 }];
    for &size in sizes {
        let store = store_with(setting("RECORDS", 0), is_full.then_some(size)).await;
        let body = body(size);
        let paths = paths(&store, &body).await;
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); paths.len()];
        let rounds = if size > 100_000 { rounds / 20 } else { rounds };
        for number in 0..rounds {
            for (path, times) in paths.iter().zip(&mut times) {
                times.push(round(path, number, &body).await);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let bare = median(&times[0]) / per_round(size) as f64;
        println!(
            "{size} B; bare axum {:?} a request",
            Duration::from_secs_f64(bare)
        );
        for (path, own) in paths.iter().zip(&times).skip(1) {
            println!("  {:<22} {}", path.name, shown(own, &times[0]));
        }
        for [name, other] in POSSIBLE {
            let of = |name| {
                let at = paths.iter().position(|path| path.name == name);
                &times[at.expect("a path")]
            };
            let names = format!("{name} / {other}");
            println!("  {names:<44} {}", shown(of(name), of(other)));
        }
    }
}
