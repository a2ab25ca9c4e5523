//! Tests the attribute above and below `#[debug_handler]`, `#[instrument]` and `#[utoipa::path]`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router, debug_handler};
use axum_idem::{Idempotency, idempotent};
use serde::{Deserialize, Serialize};
use tracing::instrument;

use crate::support::{post as request, runs_once};

#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
struct Order {
    symbol: String,
}

/// Not `Debug`, so `#[instrument]` must skip it.
#[derive(Clone)]
struct Desk;

#[debug_handler]
#[idempotent(scope = token)]
async fn debugged_above(State(_desk): State<Desk>, Json(order): Json<Order>) -> Json<Order> {
    tokio::task::yield_now().await;
    Json(order)
}

#[idempotent(scope = token)]
#[debug_handler(state = Desk)]
async fn debugged_below(State(_desk): State<Desk>, Json(order): Json<Order>) -> Json<Order> {
    Json(order)
}

#[idempotent(scope = token)]
#[debug_handler]
async fn debugged_below_without_arguments() -> StatusCode {
    StatusCode::CREATED
}

#[instrument(skip(desk, order), fields(symbol = order.symbol), err, ret)]
#[idempotent(scope = token)]
async fn traced_above(
    State(desk): State<Desk>,
    Json(order): Json<Order>,
) -> Result<Json<Order>, StatusCode> {
    let _ = desk;
    tokio::task::yield_now().await;
    Ok(Json(order))
}

#[idempotent(scope = token)]
#[instrument(skip(desk, order))]
async fn traced_below(
    State(desk): State<Desk>,
    Json(order): Json<Order>,
) -> Result<Json<Order>, StatusCode> {
    let _ = desk;
    tokio::task::yield_now().await;
    Ok(Json(order))
}

#[idempotent(scope = token)]
#[instrument]
async fn traced_below_with_all_arguments(body: String) -> String {
    body
}

#[utoipa::path(post, path = "/described", request_body = Order, responses((status = 200, body = Order)))]
#[debug_handler]
#[idempotent(scope = token)]
#[instrument(skip_all)]
async fn described(State(_desk): State<Desk>, Json(order): Json<Order>) -> Json<Order> {
    tokio::task::yield_now().await;
    Json(order)
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(described))]
struct Api;

#[tokio::test]
async fn handlers_with_other_attributes_are_replayed() {
    let router = Router::new()
        .route("/debugged_above", post(debugged_above))
        .route("/debugged_below", post(debugged_below))
        .route("/traced_above", post(traced_above))
        .route("/traced_below", post(traced_below))
        .route("/traced_all", post(traced_below_with_all_arguments))
        .route("/described", post(described))
        .with_state(Desk)
        .route("/nothing", post(debugged_below_without_arguments))
        .layer(Idempotency::in_memory());
    let order = r#"{"symbol":"AAPL"}"#;
    for path in [
        "/debugged_above",
        "/debugged_below",
        "/traced_above",
        "/traced_below",
        "/traced_all",
        "/described",
    ] {
        let answer = runs_once(&router, || request(path, path, order)).await;
        assert_eq!(
            (answer.status, &*answer.body),
            (StatusCode::OK, order),
            "{path}"
        );
    }
    let answer = runs_once(&router, || request("/nothing", "nothing", "")).await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[test]
fn utoipa_describes_the_handler_as_written() {
    use utoipa::OpenApi as _;
    let paths = Api::openapi().paths.paths;
    assert!(paths.contains_key("/described"));
}
