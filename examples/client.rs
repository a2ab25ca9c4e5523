//! A retrying client, a proxy that loses a third of the responses, and a trading desk that books every
//! trade once.
//!
//! ```sh
//! cargo run --example client
//! ```
//!
//! starts all three and prints the number of operations, of requests and of booked trades.

mod desk;
mod fault_proxy;
mod retrying;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum_idem::Idempotency;
use fault_proxy::FaultProxy;
use reqwest_middleware::ClientWithMiddleware;
use retrying::Patience;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const OPERATIONS: usize = 60;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let desk = TcpListener::bind("127.0.0.1:0").await?;
    let desk_address = desk.local_addr()?;
    let router = desk::router(Idempotency::in_memory());
    tokio::spawn(async move { axum::serve(desk, router).await });
    let proxy = FaultProxy::start(desk_address).await?;

    // Real clients wait longer between tries. This example uses short waits, so that it finishes
    // quickly.
    let patience = Patience {
        tries: 20,
        first_wait: Duration::from_millis(20),
        longest_wait: Duration::from_millis(200),
        ..Patience::default()
    };
    let client = retrying::client(patience)?;

    let started = Instant::now();
    let mut operations = JoinSet::new();
    for number in 1..=OPERATIONS {
        operations.spawn(place_trade(client.clone(), proxy.address(), number));
    }
    while let Some(operation) = operations.join_next().await {
        operation??;
    }

    println!(
        "{OPERATIONS} operations took {} requests and booked {} trades, in {:.1?}",
        proxy.requests(),
        booked(desk_address).await?,
        started.elapsed(),
    );
    Ok(())
}

async fn place_trade(
    client: ClientWithMiddleware,
    desk: SocketAddr,
    quantity: usize,
) -> Result<(), Error> {
    let order = serde_json::json!({ "symbol": "AAPL", "side": "buy", "quantity": quantity });
    let response = client
        .post(format!("http://{desk}/accounts/7/trades"))
        .bearer_auth("alice.1")
        .json(&order)
        .send()
        .await?;
    response.error_for_status()?;
    Ok(())
}

/// Asks the desk directly and not through the proxy.
async fn booked(desk: SocketAddr) -> Result<usize, Error> {
    let response = reqwest::get(format!("http://{desk}/accounts/7/trades")).await?;
    let trades: Vec<serde_json::Value> = response.json().await?;
    Ok(trades.len())
}
