//! Servers that a test starts on free ports and in temporary folders. They end with the test.

pub mod asking;
pub mod pgbouncer;
pub mod postgres;
pub mod redis;
pub mod wire;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Returns a port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// Polls `look` until it returns a value.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < give_up_at,
            "timed out while waiting: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Like [`eventually`], for an async `look`.
pub async fn eventually_async<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < give_up_at,
            "timed out while waiting: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether any file of a folder contains a text.
pub fn is_in(folder: &Path, text: &str) -> bool {
    let mut grep = Command::new("grep");
    grep.args(["-r", "-a", "-q", "-s", "-F", "-e", text]);
    // Files may disappear during the search. Then `grep` exits with status 2.
    let found = grep.arg(folder).status().expect("`grep` runs");
    found.success()
}

/// The bytes of all files of a folder and its folders.
pub fn files_in(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Files may disappear meanwhile.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            bytes.extend(files_in(&path));
        } else if path.is_file() {
            bytes.extend(std::fs::read(&path).unwrap_or_default());
        }
    }
    bytes
}

/// Sends a signal to a process that this test started.
pub fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(status.expect("`kill` runs").success(), "kill {signal}");
}

/// Kills a process that this test started.
pub fn end(child: &mut Child) {
    // The process may already have ended.
    let _ = child.kill();
    let _ = child.wait();
}
