#![deny(warnings)]

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};

#[derive(Clone)]
struct Desk;

/// Books a trade.
#[idempotent(ttl = "24h", scope = token)]
async fn place_trade(
    State(_desk): State<Desk>,
    Path(account): Path<u64>,
    Json(order): Json<String>,
) -> Result<(StatusCode, Json<String>), StatusCode> {
    if account == 0 {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok((StatusCode::CREATED, Json(order)))
}

pub fn main() {
    let _: axum::Router = axum::Router::new()
        .route("/accounts/{id}/trades", post(place_trade))
        .with_state(Desk)
        .layer(Idempotency::in_memory());
}
