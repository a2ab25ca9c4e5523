//! Measures the stores behind a socket: `cargo bench --bench stores --all-features`.
//!
//! Starts its own `redis-server` and `postgres`. A proxy in between counts the round trips. The times
//! are ratios to the cheapest call on the same kind of connection: a `GET` and a `SELECT 1`. The client
//! and the server share one processor, and all calls take turns in many short rounds (`ROUNDS`, 200) of
//! one run.
//!
//! `-- scale` measures how many calls one primary can serve for many callers, with the server on one
//! processor and its clients on the other. It also measures the size of a record. Needs Linux, two
//! processors and `taskset`.

#[path = "../measure/mod.rs"]
mod measure;
mod proxy;
mod scale;
mod serving;
mod single;

use std::env;

use measure::process::on_processor;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--held") {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a tokio runtime");
        if has("scale") {
            runtime.block_on(scale::run());
        } else {
            runtime.block_on(single::run());
        }
        return;
    }
    // The servers are started by that process, so they begin on the same processor.
    let mut again = on_processor(0);
    again.arg("--held");
    if has("scale") {
        again.arg("scale");
    }
    assert!(again.status().expect("`taskset` runs").success());
}
