//! Confirmations at a terminal.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use axum_idem::store::{SqliteStore, Store};

use crate::harness::{HOUR, Program, claim, prepare};

/// Runs `idem forget` at a pseudoterminal, which `script` opens, and answers its question after `meanwhile`.
async fn forgets_after(program: &Program, id: &str, meanwhile: impl AsyncFnOnce()) -> String {
    let idem = env!("CARGO_BIN_EXE_idem");
    let mut child = Command::new("script")
        .args([
            "-qec",
            &format!("{idem} forget {id} --reason test"),
            "/dev/null",
        ])
        .env("IDEM_STORE", &program.url)
        .env("IDEM_NAMESPACE", "shop")
        .env_remove("IDEM_AUDIT_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script of util-linux starts");
    let mut output = child.stdout.take().expect("a pipe");
    let mut text = Vec::new();
    while !text.ends_with(b"[y/N] ") {
        let mut byte = [0];
        let read = output.read(&mut byte).expect("it prints");
        assert_eq!(read, 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    meanwhile().await;
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"y\n").expect("it reads");
    output.read_to_end(&mut text).expect("it ends");
    child.wait().expect("it ends");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_record_that_changes_during_the_question_is_not_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let program = Program::new(format!("sqlite://{}", path.display()));
    let prepared = prepare(&program, &store).await;
    let id = prepared.unknown.to_string();
    let is_there = async || {
        let entry = store.look_up(prepared.unknown).await;
        entry.expect("it is looked up").is_some()
    };
    let retry = async || {
        store.forget(prepared.unknown).await.expect("it forgets");
        claim(&store, prepared.unknown, HOUR).await;
    };
    let printed = forgets_after(&program, &id, retry).await;
    assert!(
        printed.contains("has changed since it was shown"),
        "{printed}"
    );
    assert!(is_there().await);
    let printed = forgets_after(&program, &id, async || {}).await;
    assert!(printed.contains("1 records were forgotten"), "{printed}");
    assert!(!is_there().await);
}
