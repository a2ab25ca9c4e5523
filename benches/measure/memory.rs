//! Measures the memory that a record needs in a process with many records.

use std::env;
use std::process::Command;

use axum::Router;

use super::contenders::{Contender, body};
use super::process::resident;
use super::{float, setting};

/// A store, with the router of an endpoint that fills it.
pub(crate) struct Keeper {
    pub(crate) name: &'static str,
    pub(crate) router: fn() -> Router,
}

/// Prints the memory per record for each of `keepers`, each in its own process. This program starts
/// itself for that. Returns whether this process is such a process.
pub(crate) fn run(keepers: &[Keeper]) -> bool {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, name] = &arguments[..]
        && flag == "--hold"
    {
        let keeper = keepers.iter().find(|keeper| keeper.name == name);
        hold(keeper.expect("a store with this name"));
        return true;
    }
    println!("bytes of memory a record, {} records of 300 B", records());
    for keeper in keepers {
        let mut command = Command::new(env::current_exe().expect("a path"));
        let status = command.args(["--hold", keeper.name]).status();
        assert!(status.expect("a child process").success());
    }
    false
}

pub(crate) fn records() -> u64 {
    setting("RECORDS", 1_000_000)
}

/// Requests before the counted records. Their memory includes code, stacks and the empty store.
const BASELINE: u64 = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn hold(keeper: &Keeper) {
    let endpoint = Contender::new(keeper.name, (keeper.router)(), Some);
    let body = body(200);
    for n in 0..BASELINE {
        endpoint.serve(endpoint.request(n, &body)).await;
    }
    let baseline = resident();
    for n in 0..records() {
        endpoint.serve(endpoint.request(BASELINE + n, &body)).await;
    }
    let each = float(resident() - baseline) / float(records());
    println!("{:<34} {each:>6.0}", keeper.name);
    // Exits without dropping the records, because that is not part of the measurement.
    std::process::exit(0);
}
