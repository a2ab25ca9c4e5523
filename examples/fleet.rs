//! Two processes of the trading desk behind one store. Each process replays the responses of the other.
//!
//! ```sh
//! STORE=sqlite://fleet.db cargo run --example fleet --features sqlite
//! STORE=redis://127.0.0.1/ cargo run --example fleet --features redis
//! STORE=postgres://postgres@127.0.0.1/ cargo run --example fleet --features postgres
//! ```
//!
//! prints two addresses and commands to try. `LEASE_MS` sets how long a claim outlives its process.

mod desk;
#[path = "common/store.rs"]
mod store;

use std::error::Error;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum_idem::Idempotency;
use tokio::net::TcpListener;

/// The address of a member of the fleet. A process without this variable starts two members.
const MEMBER: &str = "MEMBER";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if std::env::var_os("STORE").is_none() {
        return Err(
            "two processes need a store to share; set STORE, for example to `sqlite://fleet.db`"
                .into(),
        );
    }
    match std::env::var(MEMBER) {
        Ok(address) => serve(address.parse()?).await,
        Err(_) => start_two(),
    }
}

async fn serve(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    // The only difference to a single process: a shared store.
    let store = store::from_environment().await?;
    let mut settings = Idempotency::builder().store(store).namespace("fleet");
    if let Ok(lease) = std::env::var("LEASE_MS") {
        settings = settings.lease(Duration::from_millis(lease.parse()?));
    }
    let idem = settings.build();
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, desk::router(idem.clone()))
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    idem.drain(Duration::from_secs(30)).await;
    Ok(())
}

fn start_two() -> Result<(), Box<dyn Error>> {
    let addresses = ["127.0.0.1:3001", "127.0.0.1:3002"];
    let members: Vec<Child> = addresses
        .iter()
        .map(|address| {
            Command::new(std::env::current_exe()?)
                .env(MEMBER, address)
                .stdout(Stdio::null())
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    let [one, other] = addresses;
    let post = |address| {
        format!(
            "curl -i http://{address}/accounts/7/trades -H 'Authorization: Bearer alice.1' \
             -H 'Idempotency-Key: trade-1' -H 'Content-Type: application/json' \
             -d '{{\"symbol\": \"AAPL\", \"side\": \"buy\", \"quantity\": 10}}'"
        )
    };
    println!(
        "Two processes share one store.\n\n\
         Book a trade at the first process, and retry at the second. The retry gets `idempotency-replayed: true`:\n\n  \
         {}\n  {}\n\n\
         List the trades that each process has booked:\n\n  \
         curl http://{one}/accounts/7/trades\n  curl http://{other}/accounts/7/trades\n",
        post(one),
        post(other),
    );
    for mut member in members {
        member.wait()?;
    }
    Ok(())
}
