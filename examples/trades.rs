//! A small trading desk whose `POST` requests are safe to retry.
//!
//! ```sh
//! cargo run --example trades
//! STORE=sqlite://trades.db cargo run --example trades --features console,metrics,sqlite
//! ```
//!
//! prints its address and commands to try. With the file, a retry gets its replay after a restart as well. With the
//! feature `metrics`, the desk serves its metrics for Prometheus at `/metrics`. With the feature `console`, it serves the
//! page for operators at `/ops/idem`, to everybody on this machine, and under the names of this machine only. Put a login
//! above the console of your service, so that `access` depends on a credential.

mod desk;
#[path = "common/store.rs"]
mod store;

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum_idem::{Idempotency, IdempotencyBuilder};
use tokio::net::TcpListener;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("{}", lines_to_try(&format!("http://{address}")));

    let store = store::from_environment().await?;
    let (builder, metrics) = observed()?;
    let idem = builder.store(store).build();
    let router = desk::router(idem.clone())
        .merge(metrics)
        .merge(console(&idem));
    axum::serve(listener, router)
        .with_graceful_shutdown(interrupted())
        .await?;
    // Handlers continue after a disconnect, but axum does not wait for them.
    idem.drain(Duration::from_secs(30)).await;
    Ok(())
}

/// Adds the observer that counts, and returns the route for Prometheus.
#[cfg(feature = "metrics")]
fn observed() -> Result<(IdempotencyBuilder, Router), Box<dyn Error>> {
    use axum_idem::metrics::{BUCKETS, Metrics};
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

    let mut recorder = PrometheusBuilder::new();
    for (name, buckets) in BUCKETS {
        recorder = recorder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
    }
    let exported = recorder.install_recorder()?;
    let upkeep = exported.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    let route = axum::routing::get(async move || exported.render());
    let builder = Idempotency::builder().observer(Metrics::default());
    Ok((builder, Router::new().route("/metrics", route)))
}

#[cfg(not(feature = "metrics"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature, it may fail")]
fn observed() -> Result<(IdempotencyBuilder, Router), Box<dyn Error>> {
    Ok((Idempotency::builder(), Router::new()))
}

/// The page for operators. `CONSOLE=read_only` and `CONSOLE=denied` show what others may see.
#[cfg(feature = "console")]
fn console(idem: &Idempotency) -> Router {
    use axum_idem::console::{Access, Console};

    let access = std::env::var("CONSOLE").ok();
    let access = match access.as_deref() {
        None => Access::Full,
        Some("read_only") => Access::ReadOnly,
        Some(_) => Access::Denied,
    };
    // The closure gets the head of the request, with the operator that a login has put into its extensions.
    // Without a credential, another site could reach the console through its own host name (DNS rebinding).
    let console = Console::new(idem.clone(), move |_| access).hosts(["127.0.0.1", "localhost"]);
    Router::new().nest_service("/ops/idem", console.router())
}

#[cfg(not(feature = "console"))]
fn console(_: &Idempotency) -> Router {
    Router::new()
}

async fn interrupted() {
    // Without a signal handler, the desk serves until it is killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn lines_to_try(desk: &str) -> String {
    let order = r#"{"symbol": "AAPL", "side": "buy", "quantity": 10}"#;
    let post = |path: &str, token: &str, key: &str| {
        format!(
            "curl -i {desk}{path} -H 'Authorization: Bearer {token}' -H 'Idempotency-Key: {key}' \
             -H 'Content-Type: application/json' -d '{order}'"
        )
    };
    format!(
        "The desk listens on {desk}\n\n\
         Book a trade. Run this twice: the second response has `idempotency-replayed: true`:\n\n  \
         {}\n\n\
         Disconnect after a second. The retry gets the response of the first request:\n\n  \
         curl -m 1 {}; {}\n\n\
         Retry with a refreshed token of the same user:\n\n  \
         {}; {}\n\n\
         List the booked trades: curl {desk}/accounts/7/trades\n",
        post("/accounts/7/trades", "alice.1", "trade-1"),
        post("/accounts/7/slow-trades", "alice.1", "trade-2").trim_start_matches("curl "),
        post("/accounts/7/slow-trades", "alice.1", "trade-2"),
        post("/me/trades", "alice.1", "trade-3"),
        post("/me/trades", "alice.2", "trade-3"),
    )
}
