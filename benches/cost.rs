//! Counts the instructions and allocations of a request: `cargo bench --bench cost`.
//!
//! callgrind counts both, so every run of one build gives the same result, whatever else the machine
//! does. The instructions of the digests are left out. valgrind does not support SHA instructions, and
//! their replacement costs as much as the rest of the request. `-- --check` compares with the committed
//! figures in `cost.txt` and fails when a figure has grown. `-- --write` writes the figures.
//!
//! `-- --misses` explains why a path takes longer than its instructions suggest. callgrind simulates a
//! processor with first-level caches of 32 KiB, and counts cache misses and mispredicted branches.

mod measure;

use std::collections::HashMap;
use std::process::{Command, ExitCode};
use std::{env, fs};

use axum_idem::store::MemoryStore;

use measure::contenders::body;
use measure::paths::paths;

/// The number of counted requests. The warm-up requests come before them.
const REQUESTS: u64 = 1_000;
const WARM_UP: u64 = 200;

/// The permitted growth of an instruction count. Toolchains and hash seeds cause smaller differences.
const MARGIN: f64 = 1.02;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--serve", path, requests] => serve(path, requests.parse().expect("a number")),
        _ => return report(&arguments),
    }
    ExitCode::SUCCESS
}

/// The program that callgrind runs. It creates all requests in every run, so that the difference
/// between two runs does not contain their creation.
#[tokio::main(flavor = "current_thread")]
async fn serve(path: &str, requests: usize) {
    let body = body(200);
    let paths = paths(&MemoryStore::default(), &body).await;
    let path = paths
        .iter()
        .find(|known| known.name == path)
        .expect("a path");
    let mut all: Vec<_> = (0..WARM_UP + REQUESTS)
        .map(|n| path.request(n, &body))
        .collect();
    for request in all.drain(..requests) {
        path.serve(request).await;
    }
    // Exits without dropping the records, because that is not part of a request.
    std::process::exit(0);
}

fn names() -> impl Iterator<Item = &'static str> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a tokio runtime")
        .block_on(async { paths(&MemoryStore::default(), &body(200)).await })
        .into_iter()
        .map(|path| path.name)
}

fn report(arguments: &[&str]) -> ExitCode {
    if arguments.contains(&"--misses") {
        report_misses();
        return ExitCode::SUCCESS;
    }
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/cost.txt");
    let mut bare = None;
    let mut lines = Vec::new();
    for name in names() {
        let cost = per_request(name, &[]);
        let instructions = cost[Event::Instructions as usize];
        let ratio = instructions / *bare.get_or_insert(instructions);
        let allocations = cost[Event::Allocations as usize].round();
        lines.push(format!("{name:<22} {ratio:>6.3} {allocations:>6.1}"));
    }
    let head = format!("{:<22} {:>6} {:>6}", "path", "instr.", "allocs");
    let table = format!("{head}\n{}\n", lines.join("\n"));
    print!("{table}");
    if arguments.contains(&"--write") {
        fs::write(committed, table).expect("the write succeeds");
    } else if arguments.contains(&"--check") {
        let committed =
            fs::read_to_string(committed).expect("a readable file of committed figures");
        let grown: Vec<_> = table
            .lines()
            .zip(committed.lines())
            .skip(1)
            .filter(|(now, then)| has_grown(now, then))
            .collect();
        for (now, then) in &grown {
            println!("has grown:\n  {now}\nfrom\n  {then}");
        }
        if !grown.is_empty() || table.lines().count() != committed.lines().count() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn has_grown(now: &str, then: &str) -> bool {
    let figures = |line: &str| -> [f64; 2] {
        let mut figures = line.rsplit(' ').filter(|part| !part.is_empty());
        [(); 2].map(|()| {
            figures
                .next()
                .and_then(|figure| figure.parse().ok())
                .expect("a figure")
        })
    };
    let ([allocations, ratio], [allocations_then, ratio_then]) = (figures(now), figures(then));
    ratio > ratio_then * MARGIN || allocations > allocations_then
}

fn report_misses() {
    const SIMULATED: [&str; 4] = [
        "--cache-sim=yes",
        "--branch-sim=yes",
        "--I1=32768,8,64",
        "--D1=32768,8,64",
    ];
    println!("of one request        instructions  I1 misses  D1 misses  mispredicted");
    for name in names() {
        let cost = per_request(name, &SIMULATED);
        let [instructions, code, data, branches] = [
            Event::Instructions,
            Event::CodeMisses,
            Event::DataMisses,
            Event::Mispredicted,
        ]
        .map(|event| cost[event as usize]);
        println!("{name:<22} {instructions:>11.0} {code:>10.0} {data:>10.0} {branches:>13.0}");
    }
}

/// The counted events.
#[derive(Clone, Copy, Debug)]
enum Event {
    Instructions,
    Allocations,
    CodeMisses,
    DataMisses,
    Mispredicted,
}

const EVENTS: usize = 5;

impl Event {
    fn named(name: &str) -> Option<Self> {
        match name {
            "Ir" => Some(Self::Instructions),
            "I1mr" => Some(Self::CodeMisses),
            "D1mr" | "D1mw" => Some(Self::DataMisses),
            "Bcm" | "Bim" => Some(Self::Mispredicted),
            _ => None,
        }
    }
}

fn per_request(path: &str, options: &[&str]) -> [f64; EVENTS] {
    let [before, after] =
        [WARM_UP, WARM_UP + REQUESTS].map(|requests| count(path, requests, options));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    std::array::from_fn(|event| (after[event] as f64 - before[event] as f64) / REQUESTS as f64)
}

fn count(path: &str, requests: u64, options: &[&str]) -> [u64; EVENTS] {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = folder.path().join("profile");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .args(options)
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(env::current_exe().expect("a path"))
        .args(["--serve", path, &requests.to_string()])
        .output()
        .expect("valgrind is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    counted(&fs::read_to_string(profile).expect("a profile"))
}

/// Reads callgrind's format, and adds up the cost of each function without its callees.
fn counted(profile: &str) -> [u64; EVENTS] {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut columns = Vec::new();
    let mut counts = [0; EVENTS];
    let mut is_digest = false;
    let mut callee = "";
    let mut is_a_call = false;
    for line in profile.lines() {
        if let Some(events) = line.strip_prefix("events: ") {
            columns = events.split(' ').map(Event::named).collect();
        } else if let Some(entry) = line.strip_prefix("fn=") {
            is_digest = is_of_a_digest(resolve(&mut names, entry));
        } else if let Some(entry) = line.strip_prefix("cfn=") {
            callee = resolve(&mut names, entry);
        } else if let Some(call) = line.strip_prefix("calls=") {
            is_a_call = true;
            if matches!(
                callee,
                "malloc" | "calloc" | "realloc" | "aligned_alloc" | "posix_memalign"
            ) {
                let calls = call.split(' ').next().and_then(|calls| calls.parse().ok());
                counts[Event::Allocations as usize] += calls.unwrap_or(0);
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            if !is_a_call && !is_digest {
                let figures = line.split(' ').skip(1).map(|figure| figure.parse().ok());
                for (event, figure) in columns.iter().zip(figures) {
                    if let Some(event) = event {
                        counts[*event as usize] += figure.unwrap_or(0);
                    }
                }
            }
            is_a_call = false;
        }
    }
    counts
}

/// Returns the name of a function. The profile contains each name only once, beside its number.
fn resolve<'p>(names: &mut HashMap<&'p str, &'p str>, entry: &'p str) -> &'p str {
    match entry.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(entry).copied().unwrap_or_default(),
    }
}

/// Whether a function belongs to a digest, or feeds or finishes a digest. The inliner decides which
/// function the cost appears in.
fn is_of_a_digest(name: &str) -> bool {
    ["sha2", "sha256", "blake3", "digest::"]
        .iter()
        .any(|part| name.contains(part))
}
