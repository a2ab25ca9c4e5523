//! Simulates two processes of a service, their store and their clients. The simulated network loses and
//! delays messages, hosts crash, and clocks jump.
//!
//! A seed decides the network, the faults and the clients. A failure prints the seed, and `IDEM_SEED`
//! runs that seed alone. The seed does not decide pauses that the engine draws itself. `IDEM_SEEDS`
//! sets the number of seeds:
//!
//! ```sh
//! IDEM_SEEDS=2000 cargo test --release --all-features --test simulation -- --nocapture
//! ```

mod chaos;
mod client;
mod oracle;
mod service;
mod store_host;
mod wire;

use std::time::Duration;

use turmoil::{Builder, Sim};

use chaos::Chaos;
use oracle::Oracle;
use store_host::Vault;

pub(crate) const LEASE: Duration = Duration::from_secs(2);
pub(crate) const SERVICES: [&str; 2] = ["service-0", "service-1"];
pub(crate) const CLIENTS: [&str; 3] = ["client-0", "client-1", "client-2"];
pub(crate) const STORE: &str = "store";

const TICK: Duration = Duration::from_millis(25);
/// How long faults occur.
const CHAOS: Duration = Duration::from_secs(25);
/// The longest time for a key afterwards: a lease, a run, and the client's own timeouts and pauses.
pub(crate) const CALM: Duration = Duration::from_secs(25);

/// The counts of one simulation.
#[derive(Debug, Default)]
struct Tally {
    faults: usize,
    keys: usize,
    runs: usize,
    /// Effects beyond the first one of their key.
    reruns: usize,
    replays: usize,
}

/// Runs the simulation of one seed.
fn simulate(seed: u64, with_faults: bool) -> Tally {
    let mut sim = Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(60))
        // Delayed messages arrive all at once.
        .tcp_capacity(4096)
        .build();
    let oracle = Oracle::default();
    // Every other simulation has a sealed store, and its two services are in the middle of a rotation.
    let is_sealed = seed % 2 == 1;
    let vault = Vault::new(oracle.clone(), is_sealed);
    let mut chaos = Chaos::new(seed);
    {
        let (vault, skew) = (vault.clone(), chaos.skew(STORE));
        sim.host(STORE, move || store_host::run(vault.clone(), skew.clone()));
    }
    for (name, is_new) in SERVICES.into_iter().zip([false, true]) {
        let (oracle, skew) = (oracle.clone(), chaos.skew(name));
        let keys = move || is_sealed.then(|| store_host::keys(is_new));
        sim.host(name, move || {
            service::run(oracle.clone(), skew.clone(), keys())
        });
    }
    for (number, name) in CLIENTS.into_iter().enumerate() {
        sim.client(name, client::run(seed, number, oracle.clone()));
    }
    while with_faults && sim.elapsed() < CHAOS {
        let ended = step(&mut sim, seed);
        chaos.step(&mut sim);
        if ended {
            break;
        }
    }
    chaos.heal(&mut sim);
    oracle.healed(sim.elapsed());
    while !step(&mut sim, seed) {}
    // Lets background work finish too.
    let clients_ended_at = sim.elapsed();
    while sim.elapsed() < clients_ended_at + 2 * LEASE {
        step(&mut sim, seed);
    }
    drop(sim);
    Tally {
        faults: chaos.count(),
        ..oracle.judge(seed, &vault, with_faults)
    }
}

fn step(sim: &mut Sim<'_>, seed: u64) -> bool {
    sim.step()
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn without_faults_each_key_runs_once() {
    for seed in 0..3 {
        let tally = simulate(seed, false);
        assert_eq!(tally.runs, tally.keys, "seed {seed}");
    }
}

#[test]
fn promises_hold_under_network_and_host_faults() {
    let only = number("IDEM_SEED");
    let first = only.unwrap_or_else(|| fastrand::u64(..1 << 48));
    let seeds = if only.is_some() {
        1
    } else {
        number("IDEM_SEEDS").unwrap_or(20)
    };
    let mut all = Tally::default();
    for seed in first..first + seeds {
        // Printed before each simulation, so that a panic in a task of a host can be traced to its
        // seed.
        println!("seed {seed}");
        let tally = simulate(seed, true);
        all.faults += tally.faults;
        all.keys += tally.keys;
        all.runs += tally.runs;
        all.reruns += tally.reruns;
        all.replays += tally.replays;
    }
    println!("{seeds} seeds from {first}: {all:?}");
    assert!(all.faults > 0 && all.replays > 0);
    // Without repeated runs, the faults tested nothing.
    assert!(all.reruns > 0 || seeds < 10, "{all:?}");
}
