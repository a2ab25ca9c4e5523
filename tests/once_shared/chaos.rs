//! Two processes on one database that are killed or stopped again and again, while clients retry. Some runs respond
//! with 422 after they have written: in their transaction, or instead of it.
//!
//! `IDEM_CHAOS_SECONDS` is how long each case lasts.

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
use axum_idem::{Attempt, Idempotency, idempotent};

use super::bank::{Bank, Paid, Payments};
use crate::servers;
use crate::support::{self, Answer, Server};

const ADDRESS: &str = "serves at ";
const CLIENTS: usize = 12;
const BETWEEN_KILLS: Duration = Duration::from_millis(350);
pub(crate) const LEASE: Duration = Duration::from_millis(600);
/// Longer than a lease.
const STOP: Duration = Duration::from_millis(900);
/// The beginning of a response that was not committed.
const REJECTED: &str = "rejected ";

/// A database with effects and accounts. No constraint keeps a second effect out.
pub(crate) trait Ledger: Payments {
    /// Writes an effect, and counts it in one of four accounts.
    fn write(
        connection: &mut Self::Connection,
        key: &str,
        run: &str,
        account: i32,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The key and the run of each effect.
    fn effects(bank: &Bank<Self>) -> impl Future<Output = Vec<(String, String)>> + Send;

    /// The sum over all accounts.
    fn transfers(bank: &Bank<Self>) -> impl Future<Output = i64> + Send;
}

async fn transfer<DB: Ledger>(bank: &Bank<DB>, attempt: &Attempt, key: &str) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{} {}", std::process::id(), bank.runs.count());
    let account = i32::try_from(key.len() % 4).expect("below 4");
    DB::write(&mut tx, key, &run, account).await?;
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
    // A key whose later attempt is not recorded starts again from attempt 1.
    if attempt.number() > 1 && number % 8 == 3 {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    Ok(attempt.commit(tx, (status, run)).await?)
}

#[idempotent(scope = token, transactional)]
async fn flagged<DB: Ledger>(State(bank): State<Bank<DB>>, attempt: Attempt, key: String) -> Paid {
    transfer(&bank, &attempt, &key).await
}

#[idempotent(scope = token)]
async fn unflagged<DB: Ledger>(
    State(bank): State<Bank<DB>>,
    attempt: Attempt,
    key: String,
) -> Paid {
    transfer(&bank, &attempt, &key).await
}

/// Serves until the process is killed.
pub(crate) async fn serve<DB: Ledger>(bank: Bank<DB>, idem: Idempotency) {
    let router = Router::new()
        .route("/flagged", post(flagged::<DB>))
        .route("/unflagged", post(unflagged::<DB>))
        .layer(idem)
        .with_state(bank);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    println!("\n{ADDRESS}{}", listener.local_addr().expect("an address"));
    axum::serve(listener, router).await.expect("served");
}

/// The variables of a process that serves.
type Environment = Vec<(&'static str, String)>;

struct Member {
    process: Child,
    server: Server,
}

impl Member {
    /// Runs the test `chaos::member_of_the_chaos` of this binary, which calls [`serve`].
    fn start(environment: &Environment) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this binary"))
            .args(["chaos::member_of_the_chaos", "--exact", "--nocapture"])
            .envs(environment.iter().cloned())
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
    async fn book(&self, key: &str) -> Answer {
        let mut tries = 0;
        loop {
            let server = self.servers.lock().expect("no panic")[tries % 2];
            let request = server.try_send(support::post(self.path, key, key));
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

    /// Kills one of the members after each pause, and starts another one. Stops every third member for longer than a
    /// lease instead. Returns the number of kills and stops.
    fn kill(&self, members: &mut [Member; 2], environment: &Environment, until: Instant) -> usize {
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
            members[at] = Member::start(environment);
            self.servers.lock().expect("no panic")[at] = members[at].server;
        }
        kills
    }
}

fn is_final(response: &Answer) -> bool {
    [StatusCode::CREATED, StatusCode::UNPROCESSABLE_ENTITY].contains(&response.status)
}

/// Checks that every acknowledged effect happened exactly once, and no other effect. `name` says what was checked.
pub(crate) async fn check<DB: Ledger>(
    bank: &Bank<DB>,
    path: &'static str,
    name: &str,
    environment: Environment,
) {
    let seconds = std::env::var("IDEM_CHAOS_SECONDS").map(|text| text.parse().expect("a number"));
    let lasts = Duration::from_secs(seconds.unwrap_or(4));
    let mut members = [Member::start(&environment), Member::start(&environment)];
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
    let killing = chaos.clone();
    let killer = tokio::task::spawn_blocking(move || {
        let kills = killing.kill(&mut members, &environment, Instant::now() + lasts);
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
        "{path} {name}: {kills} kills and stops, {} acknowledged, {} of them committed",
        acknowledged.len(),
        committed.len()
    );
    assert!(kills > 1 && acknowledged.len() > CLIENTS);

    let rows = DB::effects(bank).await;
    let keys: BTreeSet<_> = rows.iter().map(|(key, _)| key).collect();
    assert_eq!(rows.len(), keys.len(), "an effect happened twice");
    let effects: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(effects, committed, "the effects differ from the responses");
    let transfers = DB::transfers(bank).await;
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
