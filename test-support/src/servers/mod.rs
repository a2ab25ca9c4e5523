//! Servers of their own for tests: on free ports, in temporary folders, ended with the test.

pub mod asking;
pub mod pgbouncer;
pub mod postgres;
pub mod redis;
pub mod wire;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Waits for what comes soon; looks often.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up_at, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As [`eventually`], for what is awaited.
pub async fn eventually_async<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < give_up_at, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a text stands in any file of a folder.
pub fn is_in(folder: &Path, text: &str) -> bool {
    let mut grep = Command::new("grep");
    grep.args(["-r", "-a", "-q", "-s", "-F", "-e", text]);
    // Files come and go meanwhile; 2 is for those.
    let found = grep.arg(folder).status().expect("`grep` runs");
    found.success()
}

/// Sends a signal to a process of this test.
pub fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(status.expect("`kill` runs").success(), "kill {signal}");
}

/// Ends a process of this test at once.
pub fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}
