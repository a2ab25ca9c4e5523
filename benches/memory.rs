//! Measures many records in memory: the memory of each record, and the time of a request: `cargo bench
//! --bench memory`.
//!
//! The memory is that of a separate process for each store, before and after `RECORDS` (1,000,000)
//! requests with new keys. A request has 200 B and a response 300 B. The time is that of a request with
//! this many records in the store, as a ratio to a store with a thousand records. Both are measured in
//! turn, in many short rounds (`ROUNDS`, 200) of one run. Each replay uses a random record. Needs
//! Linux.
//!
//! `cargo bench --bench memory -- --churn` prints the memory of a full store after its records have
//! been replaced several times. Each combination of sizes and allocator settings runs in its own
//! process.

mod measure;

use std::env;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use axum::http::{HeaderMap, StatusCode};
use axum_idem::Fingerprint;
use axum_idem::store::{Claim, Claimed, Holder, MemoryStore, OnFull, Record, Settled, Store};
use measure::contenders::{Contender, body, minimum, protected, wide_store};
use measure::memory::{Keeper, records};
use measure::process::resident;
use measure::{line, ratios, setting, shown};
use test_support::transitions;

const FEW: u64 = 1_000;

/// Requests of one path in one round.
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
    let arguments: Vec<String> = env::args().skip(1).take(2).collect();
    if arguments.iter().any(|argument| argument == "--gigabyte") {
        gigabyte();
    } else if let [flag, name] = &arguments[..]
        && flag == "--churned"
    {
        let sizes = SIZES.iter().find(|sizes| sizes.name == name);
        churned(sizes.expect("a row with this name"));
    } else if arguments.iter().any(|argument| argument == "--churn") {
        churn();
    } else if !measure::memory::run(&keepers) {
        let mut again = Command::new(env::current_exe().expect("a path"));
        let status = again.arg("--gigabyte").status();
        assert!(status.expect("a child process").success());
        grow();
    }
}

/// Prints how far a process grows when its store may use one gibibyte, and how many records the store
/// holds.
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

/// The sizes of the bodies in a row of the table.
struct Sizes {
    name: &'static str,
    /// The exponents of the sizes to the base 2, uniformly distributed.
    bits: Range<f64>,
}

const SIZES: [Sizes; 3] = [
    Sizes {
        name: "256 B to 512 B",
        bits: 8.0..9.0,
    },
    Sizes {
        name: "128 B to 64 KiB",
        bits: 7.0..16.0,
    },
    Sizes {
        name: "16 KiB to 256 KiB",
        bits: 14.0..18.0,
    },
];

const CHURNED_BYTES: usize = 64 << 20;
/// How often the records of the store are replaced.
const LIVES: usize = 4;
const CHURNERS: usize = 4;
const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// Prints the memory of full stores, by the sizes of their records and the settings of the allocator.
fn churn() {
    let mut settings = vec![
        ("glibc", None),
        ("one arena", Some(("MALLOC_ARENA_MAX", "1"))),
        (
            "mmap from 16 KiB",
            Some(("MALLOC_MMAP_THRESHOLD_", "16384")),
        ),
    ];
    if Path::new(JEMALLOC).exists() {
        settings.push(("jemalloc", Some(("LD_PRELOAD", JEMALLOC))));
    }
    println!("resident memory, ratio to `max_bytes(64 << 20)`, after {LIVES} times as many bytes");
    let names: Vec<_> = settings.iter().map(|(name, _)| *name).collect();
    line("bodies", &names);
    for sizes in &SIZES {
        let ratios: Vec<_> = settings
            .iter()
            .map(|(_, setting)| {
                let mut again = Command::new(env::current_exe().expect("a path"));
                again.args(["--churned", sizes.name]).envs(*setting);
                let output = again.output().expect("a child process");
                assert!(output.status.success());
                let ratio = String::from_utf8(output.stdout).expect("a number");
                ratio.trim().to_owned()
            })
            .collect();
        line(sizes.name, &ratios);
    }
}

/// Fills a store repeatedly from several threads, and prints the memory that the process used.
fn churned(sizes: &Sizes) {
    let store = MemoryStore::builder()
        .max_bytes(CHURNED_BYTES)
        .on_full(OnFull::EvictOldest)
        .build();
    let baseline = resident();
    thread::scope(|scope| {
        for churner in 0..CHURNERS {
            let store = &store;
            scope.spawn(move || churner_of(store, sizes, churner));
        }
    });
    let grown = measure::float(resident() - baseline);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = CHURNED_BYTES as f64;
    println!("{:.2}", grown / bytes);
    std::process::exit(0);
}

#[tokio::main(flavor = "current_thread")]
async fn churner_of(store: &MemoryStore, sizes: &Sizes, churner: usize) {
    const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);
    let mut random = fastrand::Rng::with_seed(churner as u64);
    let mut written = 0;
    let mut number = (churner as u64) << 40;
    while written < LIVES * CHURNED_BYTES / CHURNERS {
        let Range { start, end } = sizes.bits;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size"
        )]
        let length = (start + random.f64() * (end - start)).exp2() as usize;
        number += 1;
        let second = std::time::Duration::from_secs(1);
        let claim = Claim::new(
            transitions::id(number),
            FINGERPRINT,
            second,
            transitions::DAY,
        );
        let (id, owner) = (claim.id, claim.owner);
        let Ok(Claimed::Fresh { fence, .. }) = store.claim(claim).await else {
            continue;
        };
        let record = Record::answer(
            FINGERPRINT,
            StatusCode::CREATED,
            &HeaderMap::new(),
            &vec![b'n'; length],
        );
        let holder = Holder { id, owner, fence };
        let record = record.expect("the record is small enough");
        let settled = store.complete(holder, record, transitions::DAY).await;
        assert_eq!(
            settled.expect("the memory store does not fail"),
            Settled::Done
        );
        // The store adds 245 bytes for each record.
        written += length + 245;
    }
}

/// The endpoint of a store with this many records.
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

    /// Returns the seconds for requests with new keys.
    async fn first_sight(&mut self, body: &str) -> f64 {
        let new = self.records..self.records + REQUESTS;
        self.records = new.end;
        self.time(new, body).await
    }

    /// Returns the seconds for replays of random records.
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
        // A new store, because every round adds records to it.
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
    // Exits without dropping the records, because that is not part of the measurement.
    std::process::exit(0);
}
