//! A service with annotated and plain operations in the router of `aide`.

use aide::axum::ApiRouter;
use aide::axum::routing::{get, post, put, put_with};
use aide::generate::GenContext;
use aide::openapi::{OpenApi, Operation, Response};
use aide::{OperationOutput, UseApi};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum_idem::{Attempt, IdempotencyKey, idempotent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize, JsonSchema)]
struct Order {
    quantity: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Page {
    after: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
struct Parcel {
    number: String,
}

struct SoldOut;

impl IntoResponse for SoldOut {
    fn into_response(self) -> axum::response::Response {
        StatusCode::CONFLICT.into_response()
    }
}

impl OperationOutput for SoldOut {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Response)> {
        let sold_out = Response {
            description: "The goods are sold out.".into(),
            ..Response::default()
        };
        vec![(Some(409), sold_out)]
    }
}

#[idempotent(scope = token, required, on_unknown = hold)]
async fn place_order(
    State(largest): State<u32>,
    _: Option<IdempotencyKey>,
    _: Attempt,
    Json(order): Json<Order>,
) -> Result<Json<Order>, SoldOut> {
    if order.quantity > largest {
        return Err(SoldOut);
    }
    Ok(Json(order))
}

/// The router says what the response is.
#[idempotent(scope = page.after.unwrap_or_default(), record = [2xx])]
async fn replace_orders(Query(page): Query<Page>) -> impl IntoResponse {
    page.after
        .map_or(StatusCode::OK, |_| StatusCode::NO_CONTENT)
}

/// The return type says what the error is.
#[idempotent(scope = global)]
async fn cancel_order(Json(order): Json<Order>) -> Result<impl IntoResponse, SoldOut> {
    if order.quantity == 0 {
        return Err(SoldOut);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The return type says what the response is.
#[idempotent(scope = global, record_body = none)]
async fn issue_card(Json(order): Json<Order>) -> UseApi<impl IntoResponse, Json<Order>> {
    Json(order).into()
}

#[idempotent(scope = global)]
async fn reset() {}

#[idempotent(scope = global, key = header("x-github-delivery"))]
async fn receive(_: IdempotencyKey) -> StatusCode {
    StatusCode::NO_CONTENT
}

#[idempotent(scope = global, key = parcel.number)]
async fn receive_parcel(Path(parcel): Path<Parcel>) -> String {
    parcel.number
}

#[idempotent(scope = global)]
async fn list_orders() -> Json<Vec<Order>> {
    Json(Vec::new())
}

async fn plain(Json(order): Json<Order>) -> Json<Order> {
    Json(order)
}

/// The router, and its document without the last line of a service.
pub(crate) fn service() -> (axum::Router, OpenApi) {
    let mut api = OpenApi::default();
    api.info.title = "Orders".into();
    api.info.version = "1".into();
    let router = ApiRouter::new()
        .api_route("/orders", post(place_order).get(list_orders))
        .api_route(
            "/all",
            put_with(replace_orders, |operation| {
                let replaced = operation.summary("Replaces all orders.");
                let replaced = replaced.response_with::<200, String, _>(|response| {
                    response.description("All orders were replaced.")
                });
                replaced.response::<204, ()>()
            }),
        )
        .api_route("/cancelled", put(cancel_order))
        .api_route("/cards", post(issue_card))
        .api_route("/reset", post(reset))
        .api_route("/events", post(receive))
        .api_route("/parcels/{number}", put(receive_parcel))
        .api_route("/plain", get(async || "plain").post(plain))
        .finish_api(&mut api)
        .with_state(9);
    (router, api)
}
