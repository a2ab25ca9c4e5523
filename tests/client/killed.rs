//! Kills the process of a client in the middle of an operation, and starts the client again.

#[expect(unreachable_pub, reason = "the documentation has the same text")]
#[path = "key_files.rs"]
mod key_files;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use axum_idem::{Idempotency, IdempotencyKey, idempotent};
use http::StatusCode;
use idem_client::{ClientBuilder, KeyFuture, KeyStore, Operation, ResponseExt as _};
use key_files::KeyFiles;
use tempfile::TempDir;
use test_support::http::{Runs, Server};

const URL: &str = "AXUM_IDEM_TEST_URL";
const FOLDER: &str = "AXUM_IDEM_TEST_FOLDER";
const OPERATION: &str = "AXUM_IDEM_TEST_OPERATION";
const STOPS: &str = "AXUM_IDEM_TEST_STOPS_BEFORE_IT_SENDS";

/// Says when a key is kept.
struct Spoken(KeyFiles);

impl KeyStore for Spoken {
    fn key<'a>(&'a self, operation: &'a str, fresh: String) -> KeyFuture<'a> {
        Box::pin(async move {
            let key = self.0.key(operation, fresh).await?;
            println!("\nkept {key}");
            if std::env::var_os(STOPS).is_some() {
                std::future::pending::<()>().await;
            }
            Ok(key)
        })
    }
}

/// Not a test. The tests start this function as a process that they can kill.
#[tokio::test]
async fn client_of_a_killed_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let variable = |name| std::env::var(name).expect("the variable is set");
    let keys = Spoken(KeyFiles(variable(FOLDER).into()));
    let client = ClientBuilder::default().policy(crate::eager());
    let client = client.key_store(keys).build().expect("a client");
    let request = client.post(url).body("once");
    let request = request.with_extension(Operation::named(variable(OPERATION)));
    let response = request.send().await.expect("a response");
    let key = response.idempotency_key().expect("a key").to_owned();
    let (status, is_replay) = (response.status(), response.replayed());
    let body = response.text().await.expect("a body");
    println!("\ngot {} {key} {body} {is_replay}", status.as_u16());
    // A client that is killed here has not stored what it got.
    std::future::pending::<()>().await;
}

struct Client {
    process: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Client {
    fn start(server: Server, folder: &TempDir, operation: &str, stops: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
        command
            .args([
                "killed::client_of_a_killed_process",
                "--exact",
                "--nocapture",
            ])
            .env(URL, format!("http://{}/", server.0))
            .env(FOLDER, folder.path())
            .env(OPERATION, operation)
            .stdout(Stdio::piped());
        if stops {
            command.env(STOPS, "1");
        }
        let mut process = command.spawn().expect("the process starts");
        let output = process.stdout.take().expect("stdout is piped");
        Self {
            process,
            lines: Some(BufReader::new(output).lines()),
        }
    }

    /// Returns the rest of the next line that begins with this word.
    async fn next(&mut self, word: &'static str) -> String {
        let mut lines = self.lines.take().expect("one caller at a time");
        let find = move || {
            let line = (&mut lines)
                .map_while(Result::ok)
                .find_map(|line| Some(line.strip_prefix(word)?.to_owned()));
            (lines, line)
        };
        let (lines, line) = tokio::task::spawn_blocking(find).await.expect("no panic");
        self.lines = Some(lines);
        line.expect("the process prints the line")
    }

    /// Sends SIGKILL.
    fn kill(mut self) {
        self.process.kill().expect("the process runs");
        self.process.wait().expect("the process ends");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // After a failed assertion, the process still runs.
        let _ = self.process.kill();
    }
}

/// Counts each effect of a key, and waits at the gate of `Runs`.
#[derive(Clone, Default)]
struct Ledger {
    runs: Runs,
    effects: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Ledger {
    async fn serve(&self) -> Server {
        let router = Router::new()
            .route("/", post(pay))
            .layer(Idempotency::in_memory())
            .with_state(self.clone());
        Server::start(router).await
    }

    fn count(&self, key: &IdempotencyKey) {
        let mut effects = self.effects.lock().expect("no panic");
        *effects.entry(key.to_string()).or_default() += 1;
    }

    fn effects(&self) -> BTreeMap<String, usize> {
        self.effects.lock().expect("no panic").clone()
    }
}

#[idempotent(scope = global)]
async fn pay(State(ledger): State<Ledger>, key: IdempotencyKey, _: String) -> (StatusCode, String) {
    ledger.count(&key);
    let run = ledger.runs.pass().await;
    (StatusCode::CREATED, run.to_string())
}

/// The keys in the folder, without drafts.
fn kept(folder: &TempDir) -> Vec<String> {
    let files = fs::read_dir(folder).expect("a readable folder").flatten();
    let files = files.filter(|file| file.path().extension().is_none());
    let read = |file: fs::DirEntry| fs::read_to_string(file.path()).expect("a readable file");
    files.map(read).collect()
}

#[tokio::test]
async fn a_client_that_is_killed_while_the_handler_runs_repeats_its_key() {
    let (ledger, folder) = (Ledger::default(), TempDir::new().expect("a folder"));
    let server = ledger.serve().await;
    let mut client = Client::start(server, &folder, "pay invoice 17", false);
    let key = client.next("kept ").await;
    ledger.runs.until_started(1).await;
    client.kill();

    let mut again = Client::start(server, &folder, "pay invoice 17", false);
    assert_eq!(again.next("kept ").await, key);
    // A second run could pass too.
    ledger.runs.open(2);
    assert_eq!(again.next("got ").await, format!("201 {key} 1 true"));
    // Killed before it has stored the response.
    again.kill();
    let mut last = Client::start(server, &folder, "pay invoice 17", false);
    assert_eq!(last.next("got ").await, format!("201 {key} 1 true"));
    last.kill();
    assert_eq!(ledger.effects(), BTreeMap::from([(key.clone(), 1)]));
    assert_eq!(kept(&folder), [key]);
}

#[tokio::test]
async fn a_client_that_is_killed_before_it_sends_sends_the_kept_key() {
    let (ledger, folder) = (Ledger::default(), TempDir::new().expect("a folder"));
    let server = ledger.serve().await;
    ledger.runs.open(2);
    let mut client = Client::start(server, &folder, "pay invoice 17", true);
    let key = client.next("kept ").await;
    client.kill();
    assert_eq!(ledger.effects(), BTreeMap::new());

    let mut again = Client::start(server, &folder, "pay invoice 17", false);
    assert_eq!(again.next("got ").await, format!("201 {key} 1 false"));
    again.kill();
    // Another operation has another key.
    let mut other = Client::start(server, &folder, "pay invoice 18", false);
    let got = other.next("got ").await;
    assert!(got.ends_with(" 2 false") && !got.contains(&key), "{got}");
    other.kill();
    assert_eq!(ledger.effects().into_values().collect::<Vec<_>>(), [1, 1]);
}

/// The kills hit every step, also the writing of the key.
#[tokio::test]
async fn clients_that_are_killed_at_random_times_cause_one_effect_for_each_operation() {
    const OPERATIONS: usize = 12;
    let (ledger, folder) = (Ledger::default(), TempDir::new().expect("a folder"));
    let server = ledger.serve().await;
    ledger.runs.open(3 * OPERATIONS);
    let seed = std::env::var("IDEM_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("a number"),
    );
    println!("IDEM_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..OPERATIONS {
        let operation = format!("pay invoice {number}");
        for _ in 0..2 {
            let client = Client::start(server, &folder, &operation, false);
            tokio::time::sleep(Duration::from_millis(random.u64(..60))).await;
            client.kill();
        }
        let mut last = Client::start(server, &folder, &operation, false);
        let got = last.next("got 201 ").await;
        last.kill();
        let key = got.split(' ').next().expect("a key");
        assert_eq!(ledger.effects()[key], 1, "{operation}: {got}");
    }
    assert_eq!(ledger.effects().len(), OPERATIONS);
    assert_eq!(kept(&folder).len(), OPERATIONS);
}

#[test]
fn the_documented_key_store_is_the_tested_one() {
    let without_space = |text: &str| text.split_whitespace().collect::<String>();
    let read = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(path).expect("a readable file")
    };
    let documented = read("idem-client/src/key.rs").replace("\n/// ", "\n");
    let documented = documented.replace("\n///\n", "\n\n");
    let tested = read("tests/client/key_files.rs");
    let (_, tested) = tested.split_once("\n\n").expect("a first line");
    assert!(without_space(&documented).contains(&without_space(tested)));
}
