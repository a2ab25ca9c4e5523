//! Measures throughput and latency over loopback as ratios to bare axum: `cargo bench --bench
//! loopback`.
//!
//! The server runs on one processor and its client on another, with 64 connections and one request at a
//! time on each. All paths are measured in turn, in many short rounds of one run. The output is the
//! median of the ratios of all rounds, with its quartiles. The processor time of the server is printed
//! beside the throughput, because other work on the machine disturbs it less. The load of the client is
//! printed too: at 1.0, the client would be the bottleneck. A second part measures an open loop:
//! requests are sent on a schedule, and each latency counts from the scheduled time. `ROUNDS` (60) sets
//! the number of rounds. Needs Linux, two processors and `taskset`.

mod measure;

fn main() {
    measure::loopback::run(measure::contenders::contenders);
}
