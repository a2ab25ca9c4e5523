//! Helpers for measured processes: their processor, their time and their memory.

use std::env;
use std::fs;
use std::process::Command;

/// Returns a command that runs this program on one processor, so that a server and its client never
/// share one.
pub(crate) fn on_processor(number: usize) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", &number.to_string()])
        .arg(env::current_exe().expect("a path"));
    command
}

/// Returns the seconds that the first thread of a process has run.
pub(crate) fn seconds_run(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/schedstat")).expect("a running process");
    let nanoseconds = stat.split(' ').next().expect("a number");
    nanoseconds.parse::<f64>().expect("a number") / 1e9
}

/// Returns the resident memory of this process in bytes.
pub(crate) fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let stat = fs::read_to_string("/proc/self/statm").expect("Linux has `/proc`");
    let pages = stat.split(' ').nth(1).expect("a number");
    pages.parse::<u64>().expect("a number") * PAGE
}

/// Moves the only thread of this process to a processor. New processes start on the same processor.
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
