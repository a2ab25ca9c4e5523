//! Code that the services share: the server, the bearer token and the data.

mod books;
pub(crate) mod store;

use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum_idem::Idempotency;
use tokio::net::TcpListener;

pub(crate) use books::Books;

/// Serves on the port that `PORT` names, or on `default_port`, until it is interrupted. Prints the
/// `curl` lines from the header of `source` with the address of this server.
#[allow(dead_code, reason = "one example opens its own listener")]
pub(crate) async fn serve(
    source: &str,
    default_port: u16,
    router: Router,
    keys: &[&Idempotency],
) -> std::io::Result<()> {
    let listener = listen("PORT", default_port).await?;
    serve_on(listener, source, default_port, router, keys).await
}

/// Listens on the loopback interface, on the port that `variable` names, or on `default_port`.
pub(crate) async fn listen(variable: &str, default_port: u16) -> std::io::Result<TcpListener> {
    let port = std::env::var(variable).ok();
    let port = port.map_or(Ok(default_port), |port| port.parse());
    let port = port.map_err(std::io::Error::other)?;
    TcpListener::bind(("127.0.0.1", port)).await
}

/// Like [`serve`], on a listener.
pub(crate) async fn serve_on(
    listener: TcpListener,
    source: &str,
    default_port: u16,
    router: Router,
    keys: &[&Idempotency],
) -> std::io::Result<()> {
    let address = listener.local_addr()?;

    println!("listening on http://{address}\n");
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        if let Some(line) = line.strip_prefix(' ').filter(|line| is_printed(line)) {
            println!(
                "{}",
                line.replace(&format!("localhost:{default_port}"), &address.to_string())
            );
        }
    }

    axum::serve(listener, router)
        .with_graceful_shutdown(interrupted())
        .await?;
    // Handlers continue after a disconnect, but axum does not wait for them.
    for keys in keys {
        keys.drain(Duration::from_secs(30)).await;
    }
    Ok(())
}

fn is_printed(line: &str) -> bool {
    line.starts_with("curl ") || line.starts_with("# ")
}

async fn interrupted() {
    // Without a signal handler, the service runs until it is killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The bearer token of a request. A request without a token is rejected first.
#[allow(dead_code, reason = "not every example has tokens")]
#[derive(Clone, Debug)]
pub(crate) struct Bearer(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Bearer {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let token = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        token
            .map(|token| Self(token.into()))
            .ok_or((StatusCode::UNAUTHORIZED, "send `Authorization: Bearer …`"))
    }
}

/// Appends the entry that `make` returns for the next number. Numbers begin at 1.
#[allow(dead_code, reason = "not every example numbers its entries")]
pub(crate) fn add<T: Clone>(entries: &mut Vec<T>, make: impl FnOnce(usize) -> T) -> T {
    let entry = make(entries.len() + 1);
    entries.push(entry.clone());
    entry
}
