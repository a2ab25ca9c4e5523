//! Many records in memory: what each takes, and what they cost a request: `cargo bench --bench memory`.
//!
//! Memory is that of a process of its own for each store, before and after `RECORDS` (1,000,000)
//! requests with new keys, 200 B in and 300 B out. Time is that of a request with so many records in
//! the store, as a ratio to one with a thousand, both in turn in many short rounds (`ROUNDS`, 200) of
//! one run. Replays are of a record chosen at random each time. Linux only.

mod measure;

use std::env;
use std::process::Command;
use std::time::Instant;

use axum_idem::store::MemoryStore;
use measure::contenders::{Contender, body, minimum, protected, wide_store};
use measure::memory::{Keeper, records};
use measure::process::resident;
use measure::{line, ratios, setting, shown};
use test_support::transitions;

const FEW: u64 = 1_000;

/// Of one path in one round.
const REQUESTS: u64 = 200;

fn main() {
    let keepers = [
        Keeper {
            name: "axum-idem",
            router: || protected(wide_store()),
        },
        Keeper {
            name: "minimum, with moka",
            router: minimum,
        },
    ];
    if env::args().nth(1).as_deref() == Some("--gigabyte") {
        gigabyte();
    } else if !measure::memory::run(&keepers) {
        let mut again = Command::new(env::current_exe().expect("a path"));
        let status = again.arg("--gigabyte").status();
        assert!(status.expect("ours").success());
        grow();
    }
}

/// What a store takes that was given a gibibyte, at most, and how much it holds.
#[tokio::main(flavor = "current_thread")]
async fn gigabyte() {
    let store = MemoryStore::builder().max_bytes(1 << 30).build();
    let baseline = resident();
    let mut records = 0;
    while transitions::run(&store, records, transitions::DAY).await {
        records += 1;
    }
    println!(
        "\n`max_bytes(1 << 30)`: {records} records of 300 B, then 503; the process grew by {} MiB",
        (resident() - baseline) >> 20
    );
    std::process::exit(0);
}

/// The endpoint of a store with so many records, and their number.
struct Filled {
    endpoint: Contender,
    records: u64,
}

impl Filled {
    async fn with(records: u64, body: &str) -> Self {
        let endpoint = Contender::new("grown", protected(wide_store()), Some);
        for n in 0..records {
            endpoint.serve(endpoint.request(n, body)).await;
        }
        Self { endpoint, records }
    }

    /// Seconds for requests that are new.
    async fn first_sight(&mut self, body: &str) -> f64 {
        let new = self.records..self.records + REQUESTS;
        self.records = new.end;
        self.time(new, body).await
    }

    /// Seconds for replays of any records.
    async fn replay(&self, body: &str) -> f64 {
        let known = (0..REQUESTS).map(|_| fastrand::u64(..self.records));
        self.time(known, body).await
    }

    async fn time(&self, keys: impl Iterator<Item = u64>, body: &str) -> f64 {
        let requests = self.endpoint.requests(keys, body);
        let begun = Instant::now();
        for request in requests {
            self.endpoint.serve(request).await;
        }
        begun.elapsed().as_secs_f64()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn grow() {
    fastrand::seed(1);
    let body = body(200);
    let mut many = Filled::with(records(), &body).await;
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..setting("ROUNDS", 200) {
        // Anew, for every round adds to it.
        let mut few = Filled::with(FEW, &body).await;
        let round = [
            few.first_sight(&body).await,
            many.first_sight(&body).await,
            few.replay(&body).await,
            many.replay(&body).await,
        ];
        for (times, time) in times.iter_mut().zip(round) {
            times.push(time);
        }
    }
    let [few_first, many_first, few_replay, many_replay] = &times;
    println!(
        "\ntime of a request with {} records, ratio to {FEW}",
        records()
    );
    line("first sight", &[shown(ratios(many_first, few_first))]);
    line("replay", &[shown(ratios(many_replay, few_replay))]);
    // To drop a million records is no part of the measurement.
    std::process::exit(0);
}
