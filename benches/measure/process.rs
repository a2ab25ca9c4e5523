//! Processes that are measured: where they run, what they take.

use std::env;
use std::fs;
use std::process::Command;

/// This program again, held to one processor, so that a server and its client never share one.
pub(crate) fn on_processor(number: usize) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", &number.to_string()])
        .arg(env::current_exe().expect("a path"));
    command
}

/// How many seconds the first thread of a process has run.
pub(crate) fn seconds_run(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/schedstat")).expect("a process");
    let nanoseconds = stat.split(' ').next().expect("a number");
    nanoseconds.parse::<f64>().expect("a number") / 1e9
}

/// How many bytes of memory this process holds.
pub(crate) fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let stat = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = stat.split(' ').nth(1).expect("a number");
    pages.parse::<u64>().expect("a number") * PAGE
}

/// Moves this process's only thread to a processor. What it starts begins on the same.
pub(crate) fn move_to(processor: usize) {
    let moved = Command::new("taskset")
        .args([
            "-cp",
            &processor.to_string(),
            &std::process::id().to_string(),
        ])
        .output();
    assert!(moved.expect("`taskset` runs").status.success());
}
