//! A process of the service.

use std::error::Error;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::{Keys, Sealed};
use axum_idem::{Attempt, Idempotency, OutcomeUnknown, idempotent};
use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};

use crate::LEASE;
use crate::chaos::Skew;
use crate::oracle::Oracle;
use crate::store_host::RemoteStore;

pub(crate) const PORT: u16 = 80;

/// A permit that is never returned would sooner or later make every request fail.
const MAX_RUNNING: usize = 6;

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

/// A layer that commits after the handler has responded, and takes a while for that.
async fn commits(State(oracle): State<Oracle>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    // Filled when the key is claimed.
    let Ok(attempt) = Attempt::from_request_parts(&mut parts, &()).await;
    let response = next.run(Request::from_parts(parts, body)).await;
    let is_replay = response.headers().contains_key("idempotency-replayed");
    if response.status() == StatusCode::CREATED && !is_replay {
        sleep(Duration::from_millis(300)).await;
        oracle.committed(
            attempt.record_id().expect("a key"),
            attempt.fence().expect("a key"),
        );
    }
    response
}

/// Has its effect, and does not know of it.
#[idempotent(scope = token, on_unknown = hold)]
async fn doubt(
    State(oracle): State<Oracle>,
    attempt: Attempt,
    order: String,
) -> (StatusCode, OutcomeUnknown, String) {
    oracle.holds(attempt.record_id().expect("a key"));
    let (_, text) = work(&oracle, &attempt, &order).await;
    (StatusCode::GATEWAY_TIMEOUT, OutcomeUnknown, text)
}

/// Has its effect, and then hangs.
#[idempotent(scope = token, on_unknown = hold, max_run = "10s")]
async fn hang(State(oracle): State<Oracle>, attempt: Attempt, order: String) -> Answered {
    oracle.holds(attempt.record_id().expect("a key"));
    work(&oracle, &attempt, &order).await;
    pending().await
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
pub(crate) async fn run(
    oracle: Oracle,
    skew: Skew,
    keys: Option<Keys>,
) -> Result<(), Box<dyn Error>> {
    tokio::spawn(skew.follow());
    let builder = match keys {
        Some(keys) => Idempotency::builder().store(Sealed::around(RemoteStore, keys)),
        None => Idempotency::builder().store(RemoteStore),
    };
    let idem = builder
        .lease(LEASE)
        .store_timeout(Duration::from_secs(1))
        .max_running(MAX_RUNNING)
        .build();
    let router = Router::new()
        .route("/rerun", post(rerun))
        .route("/hold", post(hold))
        .route("/wait", post(wait))
        .route("/doubt", post(doubt))
        .route("/hang", post(hang))
        .layer(from_fn_with_state(oracle.clone(), commits))
        .layer(idem)
        .with_state(oracle);
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    axum::serve(Listener(listener), router).await?;
    Ok(())
}
