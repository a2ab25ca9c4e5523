//! Two processes on one PostgreSQL that are killed or stopped again and again, while clients retry. Some runs respond
//! with 422 after they have written: in their transaction, or instead of it.
//!
//! `IDEM_CHAOS_SECONDS` is how long each of the four cases lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum_idem::store::PostgresStore;
use axum_idem::{Attempt, Idempotency, idempotent};

use crate::bank::{Bank, Paid};
use crate::servers;
use crate::servers::postgres::PostgresServer;
use crate::support::Server;

const URL: &str = "AXUM_IDEM_TEST_CHAOS_URL";
const LEVEL: &str = "AXUM_IDEM_TEST_CHAOS_LEVEL";
const ADDRESS: &str = "serves at ";
const CLIENTS: usize = 12;
const BETWEEN_KILLS: Duration = Duration::from_millis(350);
const LEASE: Duration = Duration::from_millis(600);
/// Longer than a lease.
const STOP: Duration = Duration::from_millis(900);
/// The beginning of a response that was not committed.
const REJECTED: &str = "rejected ";

/// Neither table has a constraint that would keep a second effect out.
const TABLES: &str = "CREATE TABLE effects (key text NOT NULL, run text NOT NULL);
    CREATE TABLE accounts (id int PRIMARY KEY, transfers bigint NOT NULL);
    INSERT INTO accounts SELECT id, 0 FROM generate_series(0, 3) AS id";

async fn transfer(bank: &Bank, attempt: &Attempt, key: &str) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{} {}", std::process::id(), bank.runs.count());
    let insert = sqlx::query("INSERT INTO effects (key, run) VALUES ($1, $2)");
    insert.bind(key).bind(&run).execute(&mut *tx).await?;
    let update = sqlx::query("UPDATE accounts SET transfers = transfers + 1 WHERE id = $1");
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
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let levels = ["READ COMMITTED", "SERIALIZABLE"];
    let level = std::env::var(LEVEL).expect("set");
    let level = levels.into_iter().find(|it| *it == level).expect("a level");
    let bank = Bank::open(&url).await.isolated(level);
    let store = PostgresStore::connect(url).await.expect("connected");
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
    fn start(url: &str, level: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this binary"))
            .args(["chaos::member_of_the_chaos", "--exact", "--nocapture"])
            .envs([(URL, url), (LEVEL, level)])
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
fn kill(chaos: &Chaos, members: &mut [Member; 2], url: &str, level: &str, until: Instant) -> usize {
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
        members[at] = Member::start(url, level);
        chaos.servers.lock().expect("no panic")[at] = members[at].server;
    }
    kills
}

async fn check(path: &'static str, level: &'static str) {
    let seconds = std::env::var("IDEM_CHAOS_SECONDS").map(|text| text.parse().expect("a number"));
    let lasts = Duration::from_secs(seconds.unwrap_or(4));
    let postgres = PostgresServer::start();
    postgres.command(TABLES);
    let url = postgres.url();
    let mut members = [Member::start(&url, level), Member::start(&url, level)];
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
    let (killing, of_members) = (chaos.clone(), url.clone());
    let killer = tokio::task::spawn_blocking(move || {
        let kills = kill(
            &killing,
            &mut members,
            &of_members,
            level,
            Instant::now() + lasts,
        );
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
        "{path} {level}: {kills} kills and stops, {} acknowledged, {} of them committed",
        acknowledged.len(),
        committed.len()
    );
    assert!(kills > 1 && acknowledged.len() > CLIENTS);

    let bank = Bank::open(&url).await;
    let rows = sqlx::query_as::<_, (String, String)>("SELECT key, run FROM effects");
    let rows = rows.fetch_all(&bank.pool).await.expect("read");
    let keys: BTreeSet<_> = rows.iter().map(|(key, _)| key).collect();
    assert_eq!(rows.len(), keys.len(), "an effect happened twice");
    let effects: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(effects, committed, "the effects differ from the responses");
    let transfers = postgres.command("SELECT sum(transfers) FROM accounts");
    assert_eq!(transfers, effects.len().to_string());
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
    check("/flagged", "READ COMMITTED").await;
    check("/unflagged", "READ COMMITTED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_neither_repeat_nor_lose_a_serializable_effect() {
    check("/flagged", "SERIALIZABLE").await;
    check("/unflagged", "SERIALIZABLE").await;
}
