//! What the stores behind a socket cost: `cargo bench --bench stores --all-features`.
//!
//! Starts `redis-server` and `postgres` of its own. Round trips are counted by a proxy between.
//! Times are ratios to the cheapest call on the same kind of connection, a `GET` and a `SELECT 1`,
//! client and server on one processor, in turn in many short rounds (`ROUNDS`, 200) of one run.
//!
//! `-- scale` measures instead what one primary carries with many callers at once, the server on one
//! processor and its clients on the other, and what a record takes there. Linux only, with two
//! processors and `taskset`.

#[path = "../measure/mod.rs"]
mod measure;
mod proxy;
mod scale;
mod serving;
mod single;
mod transitions;

use std::env;

use measure::process::on_processor;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--held") {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        if has("scale") {
            runtime.block_on(scale::run());
        } else {
            runtime.block_on(single::run());
        }
        return;
    }
    // The servers, started from there, begin on the same processor.
    let mut again = on_processor(0);
    again.arg("--held");
    if has("scale") {
        again.arg("scale");
    }
    assert!(again.status().expect("`taskset` runs").success());
}
