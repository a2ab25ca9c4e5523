//! A process of the service.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::{Attempt, Idempotency, idempotent};
use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};

use crate::LEASE;
use crate::chaos::Skew;
use crate::oracle::Oracle;
use crate::store_host::RemoteStore;

pub(crate) const PORT: u16 = 80;

type Answered = (StatusCode, String);

/// The body names the client, the key and the duration of the work.
async fn work(oracle: &Oracle, attempt: &Attempt, order: &str) -> Answered {
    let fence = attempt.fence().expect("a request with a key");
    let id = attempt.record_id().expect("a request with a key");
    oracle.begins(id, fence);
    let (_, millis) = order.rsplit_once(' ').expect("an order with a duration");
    let half = Duration::from_millis(millis.parse().expect("a number")) / 2;
    sleep(half).await;
    oracle.effect(id, fence);
    sleep(half).await;
    (StatusCode::CREATED, format!("{order} {fence}"))
}

#[idempotent(scope = token)]
async fn rerun(State(oracle): State<Oracle>, attempt: Attempt, order: String) -> Answered {
    work(&oracle, &attempt, &order).await
}

#[idempotent(scope = token, on_unknown = hold)]
async fn hold(State(oracle): State<Oracle>, attempt: Attempt, order: String) -> Answered {
    oracle.holds(attempt.record_id().expect("a request with a key"));
    work(&oracle, &attempt, &order).await
}

#[idempotent(scope = token, in_flight = wait("2s"))]
async fn wait(State(oracle): State<Oracle>, attempt: Attempt, order: String) -> Answered {
    work(&oracle, &attempt, &order).await
}

struct Listener(TcpListener);

impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Ok(accepted) = self.0.accept().await {
                return accepted;
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves until the host crashes.
pub(crate) async fn run(oracle: Oracle, skew: Skew) -> Result<(), Box<dyn Error>> {
    tokio::spawn(skew.follow());
    let idem = Idempotency::builder()
        .store(RemoteStore)
        .lease(LEASE)
        .store_timeout(Duration::from_secs(1))
        .build();
    let router = Router::new()
        .route("/rerun", post(rerun))
        .route("/hold", post(hold))
        .route("/wait", post(wait))
        .layer(idem)
        .with_state(oracle);
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    axum::serve(Listener(listener), router).await?;
    Ok(())
}
