//! Every command on every store.

use std::process::Stdio;
use std::time::Duration;

use axum_idem::store::{Entry, PostgresStore, RedisStore, SqliteStore, Store};
use serde_json::Value;
use test_support::servers::postgres::PostgresServer;
use test_support::servers::redis::RedisServer;

use crate::harness::{Prepared, Program, Ran, SEAL_KEY, prepare, scope, seal};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_command_works_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let builder = SqliteStore::builder().path(&path).no_sweeper();
    let store = builder.busy_timeout(PATIENCE).open().await;
    let store = store.expect("the file opens");
    let url = format!("sqlite://{}", path.display());
    let program = Program::new(url.clone());
    walk(&program, &store, &["good"]).await;
    walk(&Program::sealed(url), &seal(store), &["good"]).await;
    assert_eq!(program.run(&["schema", "sqlite"]).code, 0);
}

#[tokio::test]
async fn every_command_works_on_redis() {
    let server = RedisServer::start();
    let builder = RedisStore::builder().url(server.url()).timeout(PATIENCE);
    let store = builder.connect().await.expect("redis is there");
    let program = Program::new(server.url());
    let severities = ["good", "warning"];
    walk(&program, &store, &severities).await;
    walk(&Program::sealed(server.url()), &seal(store), &severities).await;
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let unfit = program.run(&["doctor"]);
    // The program connects anew, and the store refuses to connect.
    assert_eq!(unfit.code, 4, "{unfit:?}");
    assert!(unfit.stdout.contains("noeviction"), "{unfit:?}");
    let unfit = program.run(&["doctor", "--json"]);
    assert_eq!(unfit.code, 4, "{unfit:?}");
    assert_eq!(unfit.json()[0]["is_fit"], false, "{unfit:?}");
    let stats = program.run(&["stats"]);
    assert_eq!(stats.code, 1, "{stats:?}");
}

#[tokio::test]
async fn every_command_works_on_postgres() {
    let server = PostgresServer::start();
    let builder = PostgresStore::builder().url(server.url()).no_sweeper();
    let store = builder.timeout(PATIENCE).connect().await;
    let store = store.expect("postgres is there");
    let program = Program::new(server.url());
    let severities = ["good", "warning", "bad"];
    walk(&program, &store, &severities).await;
    walk(&Program::sealed(server.url()), &seal(store), &severities).await;
    let other = program.run(&["stats", "--table", "other"]);
    assert_eq!(other.code, 1, "the program creates no table: {other:?}");
    assert!(other.stderr.contains("CREATE TABLE"), "{other:?}");
}

/// Runs a command, and checks its exit code. Nothing that it writes contains a key, a scope, a header, a body or a secret
/// of the service.
fn run(program: &Program, code: i32, arguments: &[&str], input: &str) -> Ran {
    let ran = program.run_with(arguments, input);
    assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    let all = [&ran.stdout[..], &ran.stderr[..]].concat();
    assert!(!all.contains("SECRET"), "{arguments:?}: {all}");
    assert!(!all.contains(SEAL_KEY), "{arguments:?}: {all}");
    let controls = ['\u{1b}', '\u{9b}', '\u{61c}'];
    assert!(!all.contains(controls), "{arguments:?}: {all}");
    ran
}

async fn walk(program: &Program, store: &dyn Store, severities: &[&str]) {
    let prepared = prepare(program, store).await;
    let run = |code: i32, arguments: &[&str], input: &str| run(program, code, arguments, input);
    lists(&run, &prepared);
    shows(program, &run, &prepared);

    let stats = run(0, &["stats", "--json"], "").json();
    for state in ["in_flight", "unknown", "recorded"] {
        assert_eq!(stats[0][state]["value"], 1, "{stats:?}");
    }
    run(0, &["stats"], "");
    run(0, &["sweep"], "");
    run(0, &["sweep", "--json"], "");

    let doctor = program.run(&["doctor", "--json"]);
    let doctor = &doctor.json()[0];
    let findings = doctor["findings"].as_array().expect("findings");
    assert!(findings.len() >= 5, "{doctor}");
    let known = |finding: &Value| severities.iter().any(|it| finding["severity"] == *it);
    assert!(findings.iter().all(known), "{doctor}");

    resolves(&run, store, &prepared).await;
    forgets(program, &run, store, &prepared).await;
}

type Run<'a> = dyn Fn(i32, &[&str], &str) -> Ran + 'a;

fn lists(run: &Run, prepared: &Prepared) {
    let all = run(0, &["list", "--json"], "").json();
    let mut states: Vec<_> = all.iter().map(|it| it["state"].as_str()).collect();
    states.sort_unstable();
    assert_eq!(
        states,
        [Some("in-flight"), Some("recorded"), Some("unknown")]
    );
    assert!(all.iter().all(|it| it["endpoint"] == "desk::pay"));
    let unknown = run(0, &["list", "--state", "unknown", "--json"], "").json();
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0]["id"], prepared.unknown.to_string());
    let table = run(0, &["list"], "");
    assert_eq!(table.stdout.lines().count(), 4, "{table:?}");
    let label = r"inv\u{1b}[31m\u{9b}\u{61c}-7";
    assert!(table.stdout.contains(label), "{table:?}");
    assert_eq!(unknown[0]["label"], "inv\u{1b}[31m\u{9b}\u{61c}-7");
    let one = run(0, &["list", "--limit", "1", "--json"], "");
    assert_eq!(one.json().len(), 1);
    assert!(one.stderr.contains("more records"), "{one:?}");
    assert_eq!(run(0, &["list", "--all", "--json"], "").json().len(), 3);
    let scope = prepared.unknown.scope_id().to_string();
    let of_scope = ["list", "--scope-id", &scope, "--json"];
    assert_eq!(run(0, &of_scope, "").json().len(), 3);
    for nothing in [["--endpoint", "desk::refund"], ["--older-than", "1h"]] {
        let list = [&["list", "--json"][..], &nothing].concat();
        assert!(run(0, &list, "").stdout.is_empty(), "{list:?}");
    }
}

fn shows(program: &Program, run: &Run, prepared: &Prepared) {
    let id = prepared.recorded.to_string();
    let short = prepared.recorded.short().to_string();
    for reference in [&id, &short, &prepared.recorded.urn()] {
        let shown = run(0, &["show", reference], "");
        assert!(shown.stdout.contains(&id), "{shown:?}");
        assert!(shown.stdout.contains("x-customer: (hidden)"), "{shown:?}");
        assert!(
            shown.stdout.contains("a replay of the response"),
            "{shown:?}"
        );
    }
    let shown = &run(0, &["show", &id, "--json"], "").json()[0];
    assert_eq!(shown["response"]["status"], 201);
    assert_eq!(shown["response"]["header_names"][0], "x-customer");
    let with_body = program.run(&["show", &id, "--json", "--body"]);
    let body = &with_body.json()[0]["response"]["body"];
    assert_eq!(body, "{\"card\":\"SECRET-card\"}");
    let text = program.run(&["show", &id, "--body"]).stdout;
    assert!(text.contains("SECRET-card") && text.contains("SECRET-header"));
    run(3, &["show", &"0".repeat(64)], "");
    run(3, &["show", &"0".repeat(12)], "");

    let find = ["find", "--scope", "value", "--json"];
    let found = run(0, &find, "SECRET-user\nSECRET-recorded\nSECRET-unknown\n");
    let states: Vec<_> = found.json().iter().map(|it| it["state"].clone()).collect();
    assert_eq!(states, ["recorded", "unknown"]);
    // Another scope, another namespace and another key are other records.
    run(3, &find, "SECRET-other\nSECRET-recorded\n");
    let elsewhere = [&find[..], &["--namespace", "x"]].concat();
    run(3, &elsewhere, "SECRET-user\nSECRET-recorded\n");
    let one_is_missing = run(3, &find, "SECRET-user\nSECRET-recorded\nSECRET-none\n");
    assert_eq!(one_is_missing.json().len(), 1);
    run(2, &find, "SECRET-user\n");
}

async fn resolves(run: &Run<'_>, store: &dyn Store, prepared: &Prepared) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit.log");
    let log_path = log.to_str().expect("UTF-8");
    let id = prepared.unknown.short().to_string();
    let resolve = |id: &str, fence: &str| {
        let words = [
            "resolve",
            id,
            "--fence",
            fence,
            "--status",
            "201",
            "--header",
            "content-type: text/plain",
            "--body-file",
            "-",
            "--ttl",
            "1h",
            "--reason",
            "the bank has booked it",
            "--audit-log",
            log_path,
        ];
        words.map(str::to_owned).to_vec()
    };
    // A decision about an earlier attempt.
    let fence: u64 = prepared.fence.parse().expect("a fence");
    let outdated = resolve(&id, &(fence - 1).to_string());
    let outdated: Vec<&str> = outdated.iter().map(String::as_str).collect();
    let refused = run(3, &outdated, "booked");
    assert!(refused.stderr.contains(&prepared.fence), "{refused:?}");
    let words = resolve(&id, &prepared.fence);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // Nobody is at a terminal to confirm.
    let unconfirmed = [&words[..2], &words[4..]].concat();
    let refused = run(5, &unconfirmed, "booked");
    assert!(refused.stderr.contains("--fence"), "{refused:?}");
    run(0, &words, "booked");
    let entry = store
        .look_up(prepared.unknown)
        .await
        .expect("it is looked up");
    let Some(Entry::Recorded { record, .. }) = entry else {
        panic!("{entry:?}");
    };
    assert_eq!(record.status(), 201);
    assert_eq!(&record.body()[..], b"booked");
    assert_eq!(record.headers()["content-type"], "text/plain");
    // The outcome is known now.
    run(3, &words, "booked again");
    run(3, &unconfirmed, "booked again");
    let in_flight = resolve(&prepared.in_flight.to_string(), "1");
    let in_flight: Vec<&str> = in_flight.iter().map(String::as_str).collect();
    run(3, &in_flight, "booked");

    let lines = std::fs::read_to_string(&log).expect("the audit log");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    // Each call has a line before it, and a line after it.
    let (begun, ended): (Vec<_>, Vec<_>) = lines.iter().partition(|it| it["result"] == "begun");
    let results: Vec<_> = ended.iter().map(|line| &line["result"]).collect();
    assert_eq!(results, ["no effect", "done", "no effect", "no effect"]);
    assert_eq!(begun.len(), ended.len());
    for line in [begun[1], ended[1]] {
        assert_eq!(line["subject"], prepared.unknown.to_string());
        assert_eq!(line["reason"], "the bank has booked it");
        assert_eq!(line["fence"], fence);
        assert_eq!(line["status"], 201);
        assert_eq!(line["ttl_seconds"], 3600);
        assert_eq!(line["body_bytes"], 6);
    }
}

async fn forgets(program: &Program, run: &Run<'_>, store: &dyn Store, prepared: &Prepared) {
    let id = prepared.recorded.to_string();
    let is_there = async || {
        let entry = store.look_up(prepared.recorded).await;
        entry.expect("it is looked up").is_some()
    };
    run(2, &["forget", &id, "--yes"], "");
    run(2, &["forget", &id, "--yes", "--reason", " "], "");
    run(5, &["forget", &id, "--reason", "test"], "y\n");
    assert!(is_there().await, "it was not confirmed");
    let forget = ["forget", &id, "--reason", "test", "--yes"];
    let no_log = [&forget[..], &["--audit-log", "/nowhere/audit.log"]].concat();
    run(2, &no_log, "");
    assert!(is_there().await, "the audit log cannot be opened");
    // A device that is always full, where there is one.
    if std::path::Path::new("/dev/full").exists() {
        let full = [&forget[..], &["--audit-log", "/dev/full"]].concat();
        let ran = run(1, &full, "");
        assert!(ran.stderr.contains("was not changed"), "{ran:?}");
        assert!(is_there().await, "the audit log cannot be written");
    }
    let forgotten = run(0, &forget, "");
    assert!(forgotten.stderr.contains("\"reason\":\"test\""));
    assert!(!is_there().await);
    run(3, &forget, "");

    let forget_scope = ["forget-scope", "--scope", "value", "--reason", "erasure"];
    run(5, &forget_scope, "SECRET-user\n");
    let forget_scope = [&forget_scope[..], &["--yes", "--json"]].concat();
    let forgotten = run(0, &forget_scope, "SECRET-user\n");
    assert_eq!(forgotten.json()[0]["forgotten"], 2);
    assert!(
        forgotten.stderr.contains("forget-scope"),
        "it is in the audit log: {forgotten:?}"
    );
    run(3, &forget_scope, "SECRET-user\n");
    let scope = program.service().scope_id(&scope());
    let left = store
        .list(axum_idem::store::Query::all().scope(scope))
        .await;
    assert!(left.expect("it lists").entries.is_empty());
}

/// `idem forget … 2>&1 | head` closes the standard error early.
#[tokio::test]
async fn a_change_is_in_the_audit_log_also_when_nobody_reads_the_standard_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let program = Program::new(format!("sqlite://{}", path.display()));
    let prepared = prepare(&program, &store).await;
    let log = folder.path().join("audit.log");
    let (id, log_path) = (prepared.recorded.to_string(), log.to_str().expect("UTF-8"));
    let forget = [
        "forget",
        &id,
        "--reason",
        "test",
        "--yes",
        "--audit-log",
        log_path,
    ];
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ran = program.run_to(&forget, "", Stdio::piped(), writer.into());
    assert_eq!(ran.code, 0, "{ran:?}");
    let entry = store.look_up(prepared.recorded).await;
    assert!(entry.expect("it is looked up").is_none());
    let lines = std::fs::read_to_string(&log).expect("the audit log");
    let last = lines.lines().last().expect("two lines");
    let line: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(
        (&line["subject"], &line["result"]),
        (&id.into(), &"done".into())
    );
    let seen = line["seen"].as_str().expect("the state that was shown");
    assert!(seen.starts_with("recorded at "), "{seen}");
}
