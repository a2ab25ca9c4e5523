//! Accounts and transfers: each transfer commits together with its response, so it happens exactly once.
//!
//! ```sh
//! STORE=sqlite://ledger.db cargo run --example ledger --features sqlite -- --kill
//! STORE=postgres://postgres@127.0.0.1/ cargo run --example ledger --features postgres -- --kill
//! ```
//!
//! starts two processes on one database and a client that retries. With `--kill`, the example kills one of
//! the processes every 350 ms while the client works. At the end it compares the transfers in the database
//! with the transfers that were acknowledged. `--seconds 60` changes how long the client works. The example
//! creates its tables `ledger_accounts` and `ledger_transfers` anew.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod transfers;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Set for the processes that serve.
const MEMBER: &str = "LEDGER_MEMBER";
const ADDRESS: &str = "listening on ";
const ACCOUNTS: i64 = 8;
const CLIENTS: usize = 12;
const BETWEEN_KILLS: Duration = Duration::from_millis(350);

type Failure = Box<dyn Error + Send + Sync>;

/// The database that the variable `STORE` names.
enum Database {
    #[cfg(feature = "postgres")]
    Postgres(String),
    #[cfg(feature = "sqlite")]
    Sqlite(String),
}

impl Database {
    fn from_environment() -> Result<Self, Failure> {
        let address = std::env::var("STORE").unwrap_or_default();
        match address.split_once("://") {
            #[cfg(feature = "postgres")]
            Some(("postgres", _)) => Ok(Self::Postgres(address)),
            #[cfg(feature = "sqlite")]
            Some(("sqlite", path)) => Ok(Self::Sqlite(path.to_owned())),
            _ => Err(
                "set STORE to `sqlite://` and the path of a file, or to `postgres://…`, and add \
                 `--features sqlite` or `--features postgres`"
                    .into(),
            ),
        }
    }

    async fn router(&self) -> Result<Router, Failure> {
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref url) => postgres::router(url).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(ref path) => sqlite::router(path).await,
        }
    }

    async fn create(&self) -> Result<(), Failure> {
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref url) => postgres::create(url).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(ref path) => sqlite::create(path).await,
        }
    }

    /// The number of transfers, and the sum of all accounts.
    async fn books(&self) -> Result<[i64; 2], Failure> {
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref url) => postgres::books(url).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(ref path) => sqlite::books(path).await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let database = Database::from_environment()?;
    if std::env::var(MEMBER).is_ok() {
        return serve(&database).await;
    }
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments
        .iter()
        .skip_while(|argument| *argument != "--seconds")
        .nth(1);
    let seconds = seconds.map_or(Ok(10), |text| text.parse())?;
    let kills = arguments.iter().any(|argument| argument == "--kill");
    play(&database, Duration::from_secs(seconds), kills).await
}

async fn serve(database: &Database) -> Result<(), Failure> {
    let router = database.router().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{ADDRESS}{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

/// A process that serves, and its address.
struct Member(Child, String);

impl Member {
    fn start() -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(MEMBER, "1")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix(ADDRESS).map(str::to_owned));
        let address = address.ok_or("the process does not serve")?;
        Ok(Self(process, format!("http://{address}/transfers")))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn play(database: &Database, lasts: Duration, kills: bool) -> Result<(), Failure> {
    database.create().await?;
    let mut members = [Member::start()?, Member::start()?];
    let addresses = Arc::new(Mutex::new(
        members.each_ref().map(|member| member.1.clone()),
    ));
    let until = Instant::now() + lasts;
    let run = std::process::id();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(format!("{run}-{number}"), addresses.clone(), until)))
        .collect();
    let mut killed = 0;
    while Instant::now() < until {
        sleep(BETWEEN_KILLS).await;
        if kills {
            let at = killed % 2;
            // Dropping a member kills it with SIGKILL.
            members[at] = Member::start()?;
            let mut addresses = addresses.lock().map_err(|_| "a client panicked")?;
            addresses[at].clone_from(&members[at].1);
            killed += 1;
        }
    }
    let mut acknowledged = BTreeMap::new();
    for client in clients {
        acknowledged.extend(client.await??);
    }
    let [transfers, cents] = database.books().await?;
    println!("{killed} kills");
    println!("{} transfers acknowledged", acknowledged.len());
    println!("{transfers} transfers in the database");
    let surplus = cents - ACCOUNTS * 1_000_000_000;
    println!("{surplus} cents too many");
    if i64::try_from(acknowledged.len())? != transfers || surplus != 0 {
        return Err("a transfer was repeated or lost".into());
    }
    Ok(())
}

/// Makes transfers until the time is up, and retries each one with its key until it is acknowledged.
async fn client(
    name: String,
    addresses: Arc<Mutex<[String; 2]>>,
    until: Instant,
) -> Result<BTreeMap<String, String>, Failure> {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(3))
        .build()?;
    let mut acknowledged = BTreeMap::new();
    let mut number = 0_i64;
    while Instant::now() < until {
        number += 1;
        let key = format!("{name}-{number}");
        let from = number % ACCOUNTS + 1;
        let transfer = json!({ "from": from, "to": from % ACCOUNTS + 1, "cents": 100 });
        let mut tries = 0;
        let receipt = loop {
            let address = addresses.lock().map_err(|_| "a client panicked")?[tries % 2].clone();
            tries += 1;
            let request = http
                .post(address)
                .header("authorization", "Bearer alice")
                .header("idempotency-key", &key)
                .json(&transfer);
            match request.send().await {
                Ok(response) if response.status() == 201 => {
                    if let Ok(receipt) = response.text().await {
                        break receipt;
                    }
                }
                // The process was killed, or another request with this key still runs.
                _ => sleep(Duration::from_millis(20)).await,
            }
        };
        acknowledged.insert(key, receipt);
    }
    Ok(acknowledged)
}
