//! A retrying client, a proxy that loses a third of the responses, and a trading desk that books every
//! trade once.
//!
//! ```sh
//! cargo run --example client
//! ```
//!
//! starts all three and prints the number of operations, of requests and of booked trades. The client is the crate
//! `idem-client`.

mod desk;
mod fault_proxy;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum_idem::Idempotency;
use fault_proxy::FaultProxy;
use idem_client::{ClientBuilder, Policy, Problem, ResponseExt as _};
use reqwest_middleware::ClientWithMiddleware;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const OPERATIONS: usize = 500;
/// Operations at the same time.
const CLIENTS: usize = 32;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("{}", run().await?);
    Ok(())
}

/// Returns what the example prints.
pub(crate) async fn run() -> Result<String, Error> {
    let desk = TcpListener::bind("127.0.0.1:0").await?;
    let desk_address = desk.local_addr()?;
    let router = desk::router(Idempotency::in_memory());
    tokio::spawn(async move { axum::serve(desk, router).await });
    let proxy = FaultProxy::start(vec![desk_address]).await?;

    // Real clients wait longer between tries. This example uses short waits, so that it finishes
    // quickly.
    let policy = Policy::default().waits(Duration::from_millis(20), Duration::from_millis(200));
    let client = ClientBuilder::default().policy(policy).build()?;

    let started = Instant::now();
    let (mut operations, mut replays) = (JoinSet::new(), 0);
    for number in 1..=OPERATIONS {
        if operations.len() == CLIENTS
            && let Some(operation) = operations.join_next().await
        {
            replays += usize::from(operation??);
        }
        operations.spawn(place_trade(client.clone(), proxy.address(), number));
    }
    while let Some(operation) = operations.join_next().await {
        replays += usize::from(operation??);
    }

    Ok(format!(
        "{OPERATIONS} operations took {} requests, got {replays} replays and booked {} trades, in {:.1?}",
        proxy.requests(),
        booked(desk_address).await?,
        started.elapsed(),
    ))
}

/// Returns whether the response is a replay: then the response to the first request was lost.
async fn place_trade(
    client: ClientWithMiddleware,
    desk: SocketAddr,
    quantity: usize,
) -> Result<bool, Error> {
    let order = serde_json::json!({ "symbol": "AAPL", "side": "buy", "quantity": quantity });
    let response = client
        .post(format!("http://{desk}/accounts/7/trades"))
        .bearer_auth("alice.1")
        .json(&order)
        .send()
        .await?;
    if response.status().is_success() {
        return Ok(response.replayed());
    }
    let problem: Problem = response.json().await?;
    Err(problem.title.unwrap_or_default().into())
}

/// Asks the desk directly and not through the proxy.
async fn booked(desk: SocketAddr) -> Result<usize, Error> {
    let response = reqwest::get(format!("http://{desk}/accounts/7/trades")).await?;
    let trades: Vec<serde_json::Value> = response.json().await?;
    Ok(trades.len())
}
