//! The example of the README, which contains this file from the first `use` on.
//!
//! ```sh
//! cargo run --example quickstart
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderValue, StatusCode, header::AUTHORIZATION, request::Parts};
use axum::{Json, Router, extract::FromRequestParts, routing::post};
use axum_idem::{Idempotency, idempotent};

/// The caller. Check your own tokens here.
struct User {
    id: u64,
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let token = parts.headers.get(AUTHORIZATION);
        match token.map(HeaderValue::as_bytes) {
            Some(b"Bearer alice-1" | b"Bearer alice-2") => Ok(User { id: 1 }),
            _ => Err(StatusCode::UNAUTHORIZED),
        }
    }
}

static ORDERS: AtomicU64 = AtomicU64::new(0);

#[idempotent(scope = user.id)]
async fn place_order(user: User, Json(items): Json<Vec<String>>) -> (StatusCode, String) {
    let order = ORDERS.fetch_add(1, Ordering::Relaxed) + 1;
    let receipt = format!("order {order} of user {}: {}\n", user.id, items.join(", "));
    (StatusCode::CREATED, receipt)
}

pub(crate) fn router() -> Router {
    Router::new()
        .route("/orders", post(place_order))
        .layer(Idempotency::in_memory())
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, router()).await
}
