//! The audit log when the program is killed or the log fails during a call.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use axum_idem::store::{RedisStore, Store};
use serde_json::Value;
use tempfile::TempDir;
use test_support::servers::redis::RedisServer;

use crate::harness::{Prepared, Program, prepare, scope};

const PATIENCE: Duration = Duration::from_secs(30);

/// A `forget-scope` that has opened its store, and waits for its scope.
struct Scene {
    server: RedisServer,
    store: RedisStore,
    program: Program,
    prepared: Prepared,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let server = RedisServer::start();
        let builder = RedisStore::builder().url(server.url()).timeout(PATIENCE);
        let store = builder.connect().await.expect("redis is there");
        let program = Program::new(server.url());
        let prepared = prepare(&program, &store).await;
        Self {
            server,
            store,
            program,
            prepared,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// The program opens its log after its store, and reads the scope afterwards.
    fn forget_scope(&self, log: &Path) -> Child {
        let arguments = [
            "forget-scope",
            "--scope",
            "value",
            "--yes",
            "--reason",
            "erasure",
            "--audit-log",
            log.to_str().expect("UTF-8"),
        ];
        let child = self.program.command(&arguments).spawn();
        child.expect("the program starts")
    }

    async fn has_records(&self) -> bool {
        let found = self.store.look_up(self.prepared.recorded).await;
        found.expect("it is looked up").is_some()
    }
}

/// Sends the scope. The stalled store does not reply to the call that follows.
fn send_scope(child: &mut Child) {
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"SECRET-user\n").expect("it reads");
}

/// The text of the log, when it fulfils a condition.
fn read_until(log: &Path, is_complete: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).ok();
        if let Some(text) = text.filter(|text| is_complete(text)) {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "the audit log is not complete");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn a_killed_call_is_in_the_audit_log() {
    let scene = Scene::new().await;
    let log = scene.folder.path().join("audit.log");
    let mut child = scene.forget_scope(&log);
    read_until(&log, |_| true);
    scene.server.stall();
    send_scope(&mut child);
    let text = read_until(&log, |text| text.ends_with('\n'));
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    scene.server.go_on();

    let line: Value = serde_json::from_str(&text).expect("one line of JSON");
    assert_eq!(line["action"], "forget-scope");
    assert_eq!(line["result"], "begun");
    assert_eq!(line["reason"], "erasure");
    let id = scene.program.service().scope_id(&scope());
    assert_eq!(line["subject"], id.to_string());
    assert_eq!(line["process"], child.id());
    assert_eq!(std::fs::read_to_string(&log).expect("the log"), text);
}

/// The disk may become full during the call.
#[tokio::test]
async fn a_result_that_is_not_in_the_audit_log_is_an_error() {
    let scene = Scene::new().await;
    let log = scene.folder.path().join("audit.pipe");
    let made = Command::new("mkfifo").arg(&log).status();
    assert!(made.expect("mkfifo starts").success());
    let mut child = scene.forget_scope(&log);
    // Waits until the program opens the log.
    let mut reader = BufReader::new(File::open(&log).expect("the pipe opens"));
    scene.server.stall();
    send_scope(&mut child);
    let mut line = String::new();
    reader.read_line(&mut line).expect("the first line");
    assert!(line.contains("\"begun\""), "{line}");
    drop(reader);
    scene.server.go_on();
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("3 records\""), "{said}");
    assert!(said.contains("is not in the audit log"), "{said}");
    assert!(!scene.has_records().await);
}
