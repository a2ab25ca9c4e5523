//! A process of the fleet. The tests start their own binary again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum_idem::store::{Keys, PostgresStore, RedisStore, Sealed, SqliteStore, Store};
use axum_idem::{Attempt, Idempotency, IdempotencyKey, idempotent};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::servers;
use crate::support::{PATIENCE, Server};

const STORE: &str = "AXUM_IDEM_TEST_STORE";
/// Before the URL of a store that the service seals.
pub(crate) const SEALED: &str = "sealed+";
const LEASE_MILLIS: &str = "AXUM_IDEM_TEST_LEASE_MILLIS";
const FOLDER: &str = "AXUM_IDEM_TEST_FOLDER";
/// How long a process that gets SIGTERM waits for its handlers.
const DRAIN_MILLIS: &str = "AXUM_IDEM_TEST_DRAIN_MILLIS";
const ADDRESS: &str = "serves at ";
const UNFINISHED: &str = "unfinished: ";

/// The folder that holds the file of runs and the gate.
#[derive(Clone)]
struct Folder(PathBuf);

impl Folder {
    /// Appends a line to a synced file, so that no crash can undo the effect. The line names the
    /// process.
    async fn effect(&self, key: &IdempotencyKey, attempt: &Attempt, body: &[u8]) -> String {
        let run = format!("attempt {}", attempt.number());
        let line = format!("{key}: {run} {}\n", std::process::id());
        let path = self.0.join("runs");
        let write = move || {
            let mut runs = OpenOptions::new().append(true).create(true).open(path)?;
            // A single write, so that no line is ever incomplete.
            runs.write_all(line.as_bytes())?;
            runs.sync_data()
        };
        let written = tokio::task::spawn_blocking(write).await.expect("no panic");
        written.expect("the write succeeds");
        let pause = std::str::from_utf8(body)
            .ok()
            .and_then(|body| body.parse().ok());
        tokio::time::sleep(Duration::from_millis(pause.unwrap_or_default())).await;
        run
    }

    async fn run(&self, key: &IdempotencyKey, attempt: &Attempt) -> String {
        let run = format!("attempt {}", attempt.number());
        let runs = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.0.join("runs"));
        // One write, because another process reads the file meanwhile.
        let line = format!("{key}: {run}\n");
        runs.expect("the file can be opened")
            .write_all(line.as_bytes())
            .expect("the file is writable");
        while !self.0.join("gate").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        run
    }
}

#[idempotent(scope = token)]
async fn work(
    key: IdempotencyKey,
    attempt: Attempt,
    State(folder): State<Folder>,
    _: Bytes,
) -> String {
    folder.run(&key, &attempt).await
}

#[idempotent(scope = token, on_unknown = hold)]
async fn held(
    key: IdempotencyKey,
    attempt: Attempt,
    State(folder): State<Folder>,
    _: Bytes,
) -> String {
    folder.run(&key, &attempt).await
}

/// The body says for how many milliseconds the handler continues after its effect.
#[idempotent(scope = token)]
async fn effect(
    key: IdempotencyKey,
    attempt: Attempt,
    State(folder): State<Folder>,
    body: Bytes,
) -> String {
    folder.effect(&key, &attempt, &body).await
}

async fn open(store: &str) -> Box<dyn Store> {
    if store.starts_with("redis") {
        let store = RedisStore::connect(store).await;
        Box::new(store.expect("Redis accepts connections"))
    } else if let Some(path) = store.strip_prefix("sqlite://") {
        let store = SqliteStore::open(path).await;
        Box::new(store.expect("the file opens"))
    } else {
        let store = PostgresStore::connect(store).await;
        Box::new(store.expect("PostgreSQL accepts connections"))
    }
}

/// Two versions of the service, in the second step of a rotation. The id of the process decides which one it is.
fn keys() -> Keys {
    let (first, second) = ([1; 32], [2; 32]);
    if std::process::id().is_multiple_of(2) {
        Keys::new().primary(1, first).also(2, second)
    } else {
        Keys::new().primary(2, second).also(1, first)
    }
}

/// Serves until the process gets SIGTERM and has drained, when the environment names a store.
pub(crate) async fn serve_if_asked() {
    let Ok(store) = std::env::var(STORE) else {
        return;
    };
    let variable = |name| std::env::var(name).expect("the variable is set");
    let lease = variable(LEASE_MILLIS).parse().expect("a number");
    let settings = Idempotency::builder().lease(Duration::from_millis(lease));
    let settings = match store.strip_prefix(SEALED) {
        Some(store) => settings.store(Sealed::around(open(store).await, keys())),
        None => settings.store(open(&store).await),
    };
    let idem = settings.store_timeout(Duration::from_secs(1)).build();
    let router = Router::new()
        .route("/work", post(work))
        .route("/held", post(held))
        .route("/effect", post(effect))
        .layer(idem.clone())
        .with_state(Folder(variable(FOLDER).into()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut terminated = signal(SignalKind::terminate()).expect("a signal handler");
    println!(
        "\n{ADDRESS}{}",
        listener.local_addr().expect("a valid address")
    );
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            terminated.recv().await;
        })
        .await
        .expect("the server runs");
    let drain = variable(DRAIN_MILLIS).parse().expect("a number");
    println!(
        "\n{UNFINISHED}{}",
        idem.drain(Duration::from_millis(drain)).await
    );
}

/// One process.
pub(crate) struct Member {
    process: Child,
    pub(crate) server: Server,
    /// Reads the output of the process to its end.
    unfinished: Option<JoinHandle<Option<usize>>>,
}

impl Member {
    pub(crate) async fn start(store: &str, lease: Duration, folder: &TempDir) -> Self {
        Self::that_drains(store, lease, folder, Duration::ZERO).await
    }

    /// Starts a process that waits this long for its handlers when it gets SIGTERM.
    pub(crate) async fn that_drains(
        store: &str,
        lease: Duration,
        folder: &TempDir,
        drain: Duration,
    ) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("the path of this binary"))
            .args(["member_of_a_fleet", "--exact", "--nocapture"])
            .env(STORE, store)
            .env(LEASE_MILLIS, lease.as_millis().to_string())
            .env(FOLDER, folder.path())
            .env(DRAIN_MILLIS, drain.as_millis().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let output = BufReader::new(process.stdout.take().expect("stdout is piped"));
        let find = move || {
            let mut lines = output.lines().map_while(Result::ok);
            let address = lines.find_map(|line| line.strip_prefix(ADDRESS)?.parse().ok());
            // Reads on, so that the process never writes to a closed pipe.
            let unfinished = std::thread::spawn(move || {
                let numbers = lines.filter_map(|line| line.strip_prefix(UNFINISHED)?.parse().ok());
                numbers.last()
            });
            (address, unfinished)
        };
        let found = tokio::task::spawn_blocking(find).await;
        let (address, unfinished) = found.expect("no panic");
        Self {
            process,
            server: Server(address.expect("the member serves")),
            unfinished: Some(unfinished),
        }
    }

    /// Asks the process to end, and waits until it accepts no connections.
    pub(crate) async fn terminate(&self) {
        servers::signal(&self.process, "-TERM");
        while TcpStream::connect(self.server.0).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        let status = self.process.try_wait().expect("a child process");
        status.is_some()
    }

    /// Waits for the end of a process that was asked to end. Returns how many of its handlers had not finished when
    /// the process stopped to wait for them.
    pub(crate) async fn ended(&mut self) -> usize {
        let unfinished = self.unfinished.take().expect("a process ends once");
        let unfinished = tokio::task::spawn_blocking(move || unfinished.join().expect("no panic"));
        let unfinished = tokio::time::timeout(PATIENCE, unfinished).await;
        let status = self.process.wait().expect("a child process");
        assert!(status.success(), "{status}");
        let unfinished = unfinished.expect("the process ends").expect("no panic");
        unfinished.expect("the process has drained")
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn kill(&mut self) {
        servers::end(&mut self.process);
    }

    pub(crate) fn stop(&self) {
        servers::signal(&self.process, "-STOP");
        // On a busy machine, the other threads run on until one thread has received the signal.
        while !self.is_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether all threads are stopped. Without `/proc`, nobody can tell.
    fn is_stopped(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.process.id())) else {
            return true;
        };
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        })
    }

    pub(crate) fn go_on(&self) {
        servers::signal(&self.process, "-CONT");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two processes behind one store.
pub(crate) struct Fleet {
    pub(crate) one: Member,
    pub(crate) other: Member,
    pub(crate) folder: TempDir,
}

impl Fleet {
    pub(crate) async fn start(store: &str, lease: Duration) -> Self {
        Self::that_drains(store, lease, Duration::ZERO).await
    }

    /// The first process waits this long for its handlers when it gets SIGTERM.
    pub(crate) async fn that_drains(store: &str, lease: Duration, drain: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            one: Member::that_drains(store, lease, &folder, drain).await,
            other: Member::start(store, lease, &folder).await,
            folder,
        }
    }

    /// Lets all runs finish.
    pub(crate) fn open_gate(&self) {
        fs::write(self.folder.path().join("gate"), "").expect("the file is writable");
    }

    /// All runs that have begun, in order.
    pub(crate) fn runs(&self) -> Vec<String> {
        let runs = read(&self.folder.path().join("runs"));
        runs.into_iter().map(|(_, run)| run).collect()
    }

    /// All effects of each key, in order: the attempt, and the id of the process.
    pub(crate) fn effects(&self) -> BTreeMap<String, Vec<(u32, u32)>> {
        let mut effects: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, run) in read(&self.folder.path().join("runs")) {
            let numbers = run
                .strip_prefix("attempt ")
                .and_then(|run| run.split_once(' '));
            let (attempt, process) = numbers.expect("an attempt and a process id");
            let number = |text: &str| text.parse::<u32>().expect("a number");
            let effect = (number(attempt), number(process));
            effects.entry(key).or_default().push(effect);
        }
        effects
    }

    pub(crate) fn runs_of_each_key(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (key, _) in read(&self.folder.path().join("runs")) {
            *counts.entry(key).or_default() += 1;
        }
        counts
    }
}

fn read(runs: &Path) -> Vec<(String, String)> {
    let runs = fs::read_to_string(runs).unwrap_or_default();
    let split = |line: &str| {
        let (key, run) = line.split_once(": ").expect("a key and a run");
        (key.to_owned(), run.to_owned())
    };
    runs.lines().map(split).collect()
}
