//! Accounts and transfers: each transfer commits together with its response, so it happens exactly once.
//!
//! ```sh
//! DATABASE_URL=postgres://postgres@127.0.0.1/ cargo run --example ledger --features postgres -- --kill
//! ```
//!
//! starts two processes on one database and a client that retries. With `--kill`, the example kills one of
//! the processes every 350 ms while the client works. At the end it compares the transfers in the database
//! with the transfers that were acknowledged. `--seconds 60` changes how long the client works. The example
//! creates its tables `ledger_accounts` and `ledger_transfers` anew.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::PostgresStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Set for the processes that serve.
const MEMBER: &str = "LEDGER_MEMBER";
const ADDRESS: &str = "listening on ";
const ACCOUNTS: i64 = 8;
const CLIENTS: usize = 12;
const BETWEEN_KILLS: Duration = Duration::from_millis(350);

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clone, Copy, Deserialize, Serialize)]
struct Transfer {
    from: i64,
    to: i64,
    cents: i64,
}

#[derive(Serialize)]
struct Booked {
    id: i64,
}

enum LedgerError {
    NoFunds,
    /// Also the error of any other statement, because its transaction is rolled back.
    Commit(CommitError),
}

/// Converts errors of sqlx and errors of a commit.
impl<E: Into<CommitError>> From<E> for LedgerError {
    fn from(error: E) -> Self {
        Self::Commit(error.into())
    }
}

impl IntoResponse for LedgerError {
    fn into_response(self) -> Response {
        match self {
            Self::NoFunds => StatusCode::PAYMENT_REQUIRED.into_response(),
            // Not recorded, so a retry runs again.
            Self::Commit(error) => error.into_response(),
        }
    }
}

#[idempotent(scope = token, transactional)]
async fn transfer(
    State(pool): State<PgPool>,
    attempt: Attempt,
    Json(transfer): Json<Transfer>,
) -> Result<Response, LedgerError> {
    let mut tx = pool.begin().await?;
    let [first, second] = [
        transfer.from.min(transfer.to),
        transfer.from.max(transfer.to),
    ];
    let balances: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT id, cents FROM ledger_accounts WHERE id IN ($1, $2) ORDER BY id FOR UPDATE",
    )
    .bind(first)
    .bind(second)
    .fetch_all(&mut *tx)
    .await?;
    let balance = balances.iter().find(|(id, _)| *id == transfer.from);
    if balance.is_none_or(|(_, cents)| *cents < transfer.cents) {
        return Err(LedgerError::NoFunds);
    }
    for (account, cents) in [
        (transfer.from, -transfer.cents),
        (transfer.to, transfer.cents),
    ] {
        sqlx::query("UPDATE ledger_accounts SET cents = cents + $2 WHERE id = $1")
            .bind(account)
            .bind(cents)
            .execute(&mut *tx)
            .await?;
    }
    let id = sqlx::query_scalar(
        "INSERT INTO ledger_transfers (debit, credit, cents) VALUES ($1, $2, $3) RETURNING id",
    )
    .bind(transfer.from)
    .bind(transfer.to)
    .bind(transfer.cents)
    .fetch_one(&mut *tx)
    .await?;
    // Records the response and commits, in place of `tx.commit()`.
    Ok(attempt
        .commit(tx, (StatusCode::CREATED, Json(Booked { id })))
        .await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::var("DATABASE_URL")
        .map_err(|_| "set DATABASE_URL to a `postgres://…` address")?;
    if std::env::var(MEMBER).is_ok() {
        return serve(&url).await;
    }
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments
        .iter()
        .skip_while(|argument| *argument != "--seconds")
        .nth(1);
    let seconds = seconds.map_or(Ok(10), |text| text.parse())?;
    let kills = arguments.iter().any(|argument| argument == "--kill");
    play(&url, Duration::from_secs(seconds), kills).await
}

async fn serve(url: &str) -> Result<(), Failure> {
    let pool = PgPool::connect(url).await?;
    let store = PostgresStore::from_pool(pool.clone()).await?;
    // A short lease, so that the keys of a killed process are soon free.
    let idem = Idempotency::builder()
        .store(store)
        .namespace("ledger")
        .lease(Duration::from_millis(600))
        .build();
    let router = Router::new()
        .route("/transfers", post(transfer))
        .layer(idem)
        .with_state(pool);
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

async fn play(url: &str, lasts: Duration, kills: bool) -> Result<(), Failure> {
    let pool = PgPool::connect(url).await?;
    sqlx::raw_sql(
        "DROP TABLE IF EXISTS ledger_accounts, ledger_transfers;
        CREATE TABLE ledger_accounts (id bigint PRIMARY KEY, cents bigint NOT NULL);
        CREATE TABLE ledger_transfers (id bigserial PRIMARY KEY, debit bigint NOT NULL,
            credit bigint NOT NULL, cents bigint NOT NULL);
        INSERT INTO ledger_accounts SELECT id, 1000000000 FROM generate_series(1, 8) AS id",
    )
    .execute(&pool)
    .await?;
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
    let transfers: i64 = sqlx::query_scalar("SELECT count(*) FROM ledger_transfers")
        .fetch_one(&pool)
        .await?;
    let total: i64 = sqlx::query_scalar("SELECT sum(cents)::bigint FROM ledger_accounts")
        .fetch_one(&pool)
        .await?;
    println!("{killed} kills");
    println!("{} transfers acknowledged", acknowledged.len());
    println!("{transfers} transfers in the database");
    println!("{} cents too many", total - ACCOUNTS * 1_000_000_000);
    if i64::try_from(acknowledged.len())? != transfers {
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
        let transfer = Transfer {
            from,
            to: from % ACCOUNTS + 1,
            cents: 100,
        };
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
