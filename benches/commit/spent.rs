//! What a server and this process have spent until now.

use std::fs;
use std::path::Path;

use test_support::servers::postgres::PostgresServer;

#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) flushes: f64,
    /// Seconds of processor time.
    pub(crate) by_server: f64,
    pub(crate) by_service: f64,
}

impl Spent {
    pub(crate) fn of(server: &PostgresServer) -> Self {
        let main = fs::read_to_string(server.socket_folder().join("data/postmaster.pid"));
        let main = main.expect("a running server");
        let main = main.lines().next().expect("a process");
        let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children"));
        let children = children.expect("a running server");
        let children = children.split_whitespace();
        let threads = fs::read_dir("/proc/self/task").expect("Linux has `/proc`");
        let threads = threads.map(|thread| thread.expect("a thread").path());
        Self {
            flushes: flushes(server),
            by_server: children
                .map(|child| run(&Path::new("/proc").join(child)))
                .sum(),
            by_service: threads.map(|thread| run(&thread)).sum(),
        }
    }

    /// Returns three numbers for each call: flushes, microseconds of the server, and microseconds of the service.
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    pub(crate) fn since(self, before: Self, calls: usize) -> [f64; 3] {
        [
            self.flushes - before.flushes,
            (self.by_server - before.by_server) * 1e6,
            (self.by_service - before.by_service) * 1e6,
        ]
        .map(|spent| spent / calls as f64)
    }
}

fn flushes(server: &PostgresServer) -> f64 {
    let synced =
        server.command("SELECT pg_stat_force_next_flush(); SELECT wal_sync FROM pg_stat_wal");
    let number = synced.lines().last().and_then(|line| line.parse().ok());
    number.expect("a number")
}

/// The seconds that a thread has run. 0 when it has ended.
fn run(thread: &Path) -> f64 {
    let stat = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanoseconds = stat
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    nanoseconds.unwrap_or(0.0) / 1e9
}
