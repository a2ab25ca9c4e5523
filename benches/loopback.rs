//! Throughput and latency over loopback, as ratios to bare axum: `cargo bench --bench loopback`.
//!
//! The server runs on one processor and its client on another, 64 connections, one request under
//! way on each. All paths are measured in turn, in many short rounds of one run; printed are medians
//! of the rounds' ratios and their quartiles. Beside the throughput stands what the server's process
//! took of its processor, which other work on the machine disturbs less, and how busy the client
//! was: at 1.0 it would be the client that is measured. Then the same in an open loop: requests are
//! sent on a schedule, and their latencies counted from the time at which they were due. `ROUNDS`
//! (60) in the environment says how many rounds. Linux only, with two processors and `taskset`.

mod measure;

fn main() {
    measure::loopback::run(measure::contenders::contenders);
}
