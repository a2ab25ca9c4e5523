//! Two processes on one SQLite file that are killed or stopped again and again, while clients retry. Some runs respond
//! with 422 after they have written: in their transaction, or instead of it.
//!
//! `IDEM_CHAOS_SECONDS` is how long each of the two cases lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum_idem::store::SqliteStore;
use axum_idem::{Attempt, Idempotency, idempotent};

use crate::bank::{Bank, Paid};
use crate::servers;
use crate::support::Server;

const PATH: &str = "AXUM_IDEM_TEST_CHAOS_PATH";
const ADDRESS: &str = "serves at ";
const CLIENTS: usize = 12;
const BETWEEN_KILLS: Duration = Duration::from_millis(350);
const LEASE: Duration = Duration::from_millis(600);
/// Below the lease, so that a lease is renewed while a transaction holds the lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(150);
/// Longer than a lease.
const STOP: Duration = Duration::from_millis(900);
/// The beginning of a response that was not committed.
const REJECTED: &str = "rejected ";

/// Neither table has a constraint that would keep a second effect out.
const TABLES: &str = "CREATE TABLE effects (key TEXT NOT NULL, run TEXT NOT NULL);
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, transfers INTEGER NOT NULL);
    INSERT INTO accounts VALUES (0, 0), (1, 0), (2, 0), (3, 0)";

async fn transfer(bank: &Bank, attempt: &Attempt, key: &str) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{} {}", std::process::id(), bank.runs.count());
    let insert = sqlx::query("INSERT INTO effects (key, run) VALUES (?1, ?2)");
    insert
        .bind(key.to_owned())
        .bind(run.clone())
        .execute(&mut *tx)
        .await?;
    let update = sqlx::query("UPDATE accounts SET transfers = transfers + 1 WHERE id = ?1");
    let account = i32::try_from(key.len() % 4).expect("below 4");
    update.bind(account).execute(&mut *tx).await?;
    let number = bank.runs.started();
    // A later attempt may be rejected although an earlier attempt is still committing.
    if number % 16 == 1 || attempt.number() > 1 && number.is_multiple_of(2) {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, format!("{REJECTED}{run}")).into_response());
    }
    let status = if number % 16 == 9 {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::CREATED
    };
    Ok(attempt.commit(tx, (status, run)).await?)
}

#[idempotent(scope = token, transactional)]
async fn flagged(State(bank): State<Bank>, attempt: Attempt, key: String) -> Paid {
    transfer(&bank, &attempt, &key).await
}

#[idempotent(scope = token)]
async fn unflagged(State(bank): State<Bank>, attempt: Attempt, key: String) -> Paid {
    transfer(&bank, &attempt, &key).await
}

/// Not a test of its own: the chaos test starts it as a process that it can kill.
#[tokio::test]
async fn member_of_the_chaos() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let bank = Bank::open(path.as_ref()).await;
    let store = SqliteStore::builder().path(path).busy_timeout(BUSY_TIMEOUT);
    let store = store.open().await.expect("the file opens");
    let idem = Idempotency::builder().store(store).lease(LEASE).build();
    let router = Router::new()
        .route("/flagged", post(flagged))
        .route("/unflagged", post(unflagged))
        .layer(idem)
        .with_state(bank);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    println!("\n{ADDRESS}{}", listener.local_addr().expect("an address"));
    axum::serve(listener, router).await.expect("served");
}

struct Member {
    process: Child,
    server: Server,
}

impl Member {
    fn start(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this binary"))
            .args(["chaos::member_of_the_chaos", "--exact", "--nocapture"])
            .env(PATH, path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let mut lines = output.lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix(ADDRESS)?.parse().ok());
        // Read on, so that the process never writes to a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            server: Server(address.expect("the member serves")),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        servers::end(&mut self.process);
    }
}

/// What the clients and the killer share.
struct Chaos {
    servers: Mutex<[Server; 2]>,
    is_over: AtomicBool,
    keys: AtomicUsize,
    /// The response to each key that a client has got.
    acknowledged: Mutex<BTreeMap<String, String>>,
    path: &'static str,
}

impl Chaos {
    /// Retries until the response is there, at either process.
    async fn book(&self, key: &str) -> crate::support::Answer {
        let mut tries = 0;
        loop {
            let server = self.servers.lock().expect("no panic")[tries % 2];
            let request = server.try_send(crate::support::post(self.path, key, key));
            let response = tokio::time::timeout(Duration::from_secs(3), request).await;
            match response {
                // A response that the store does not have yet is not acknowledged.
                Ok(Ok(response)) if is_final(&response) && !response.is_unrecorded() => {
                    return response;
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            tries += 1;
            assert!(tries < 3_000, "{key} never succeeds: {response:?}");
        }
    }

    async fn client(self: Arc<Self>) {
        while !self.is_over.load(Ordering::Acquire) {
            let key = format!("k{}", self.keys.fetch_add(1, Ordering::SeqCst));
            let response = self.book(&key).await;
            let run = response.text().to_owned();
            self.acknowledged.lock().expect("no panic").insert(key, run);
        }
    }
}

fn is_final(response: &crate::support::Answer) -> bool {
    [StatusCode::CREATED, StatusCode::UNPROCESSABLE_ENTITY].contains(&response.status)
}

/// Kills one of the members after each pause, and starts another one. Stops every third member for longer than a
/// lease instead. Returns the number of kills and stops.
fn kill(chaos: &Chaos, members: &mut [Member; 2], path: &Path, until: Instant) -> usize {
    let mut kills = 0;
    while Instant::now() < until {
        std::thread::sleep(BETWEEN_KILLS);
        let at = kills % 2;
        kills += 1;
        if kills % 3 == 0 {
            servers::signal(&members[at].process, "-STOP");
            std::thread::sleep(STOP);
            servers::signal(&members[at].process, "-CONT");
            continue;
        }
        servers::end(&mut members[at].process);
        members[at] = Member::start(path);
        chaos.servers.lock().expect("no panic")[at] = members[at].server;
    }
    kills
}

async fn check(path: &'static str) {
    let seconds = std::env::var("IDEM_CHAOS_SECONDS").map(|text| text.parse().expect("a number"));
    let lasts = Duration::from_secs(seconds.unwrap_or(4));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bank.db");
    let bank = Bank::open(&file).await;
    // The store changes the journal mode.
    let store = SqliteStore::open(&file).await.expect("the file opens");
    drop(store);
    let tables = sqlx::raw_sql(TABLES).execute(&bank.pool).await;
    tables.expect("created");
    let mut members = [Member::start(&file), Member::start(&file)];
    let chaos = Arc::new(Chaos {
        servers: Mutex::new([members[0].server, members[1].server]),
        is_over: AtomicBool::new(false),
        keys: AtomicUsize::new(0),
        acknowledged: Mutex::default(),
        path,
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(chaos.clone().client()))
        .collect();
    let (killing, of_members) = (chaos.clone(), file.clone());
    let killer = tokio::task::spawn_blocking(move || {
        let kills = kill(&killing, &mut members, &of_members, Instant::now() + lasts);
        killing.is_over.store(true, Ordering::Release);
        (kills, members)
    });
    let (kills, members) = killer.await.expect("no panic");
    for client in clients {
        client.await.expect("every key succeeds in the end");
    }
    let acknowledged = chaos.acknowledged.lock().expect("no panic").clone();
    let committed: BTreeMap<_, _> = acknowledged
        .clone()
        .into_iter()
        .filter(|(_, run)| !run.starts_with(REJECTED))
        .collect();
    println!(
        "{path}: {kills} kills and stops, {} acknowledged, {} of them committed",
        acknowledged.len(),
        committed.len()
    );
    assert!(kills > 1 && acknowledged.len() > CLIENTS);

    let rows = sqlx::query_as::<_, (String, String)>("SELECT key, run FROM effects");
    let rows = rows.fetch_all(&bank.pool).await.expect("read");
    let keys: BTreeSet<_> = rows.iter().map(|(key, _)| key).collect();
    assert_eq!(rows.len(), keys.len(), "an effect happened twice");
    let effects: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(effects, committed, "the effects differ from the responses");
    let transfers = sqlx::query_scalar("SELECT sum(transfers) FROM accounts");
    let transfers: i64 = transfers.fetch_one(&bank.pool).await.expect("read");
    assert_eq!(usize::try_from(transfers), Ok(effects.len()));
    for (key, run) in acknowledged {
        let replay = chaos.book(&key).await;
        assert!(
            replay.is_replay() && replay.text() == run,
            "{key}: {replay:?}"
        );
    }
    drop(members);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_neither_repeat_nor_lose_a_committed_effect() {
    check("/flagged").await;
    check("/unflagged").await;
}
