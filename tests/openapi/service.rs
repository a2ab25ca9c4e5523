//! A service with annotated and plain operations.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum_idem::{Attempt, IdempotencyKey, idempotent};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToResponse, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Deserialize, Serialize, ToSchema)]
pub(crate) struct Order {
    quantity: u32,
}

/// The goods are sold out.
#[derive(Serialize, ToSchema, ToResponse)]
#[response(description = "The goods are sold out.")]
pub(crate) struct SoldOut {
    until: String,
}

/// Places an order.
#[idempotent(scope = token, required, on_unknown = hold)]
#[utoipa::path(
    post,
    path = "/orders",
    request_body = Order,
    responses(
        (status = 201, description = "The order was placed.", body = Order),
        (status = 409, response = inline(SoldOut)),
        (status = 401, description = "The token is wrong."),
        (status = "5XX", description = "The service failed."),
    ),
)]
pub(crate) async fn place_order(Json(order): Json<Order>) -> (StatusCode, Json<Order>) {
    (StatusCode::CREATED, Json(order))
}

/// Replaces an order. The service declares the key header's neighbours and a shared response.
#[idempotent(
    scope = header("x-workspace-id"),
    record = [2xx, 410, 503],
    unknown = [504],
    fingerprint = none
)]
#[utoipa::path(
    put,
    path = "/orders/{id}",
    params(("id" = u64, Path, description = "The order."),),
    responses(
        (status = 200, description = "The order was replaced."),
        (status = 409, response = SoldOut),
        (status = 404, description = "There is no such order."),
        (status = 410, description = "The order was removed."),
    )
)]
pub(crate) async fn replace_order(Path(id): Path<u64>, body: String) -> String {
    format!("{id} {body}")
}

/// Removes an order.
#[idempotent(scope = global, transactional)]
#[utoipa::path(delete, path = "/orders/{id}", params(("id" = u64, Path)))]
pub(crate) async fn remove_order(_: Attempt, Path(_): Path<u64>) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Receives an event, whose key is in a header of its sender.
#[idempotent(scope = global, key = header("x-delivery"))]
#[utoipa::path(
    post,
    path = "/events",
    responses((status = 204, description = "The event was received."))
)]
pub(crate) async fn receive(_: IdempotencyKey, _: String) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Receives a payment, and records no body. The service describes the header of its sender itself.
#[idempotent(scope = global, key = header("x-payment"), record_body = none)]
#[utoipa::path(
    post,
    path = "/payments",
    params(("X-Payment" = String, Header, description = "The payment.")),
    responses((status = 200, description = "The card that paid."))
)]
pub(crate) async fn receive_payment(_: Option<IdempotencyKey>, _: String) -> &'static str {
    "4242"
}

/// Receives a parcel, whose key is in its path.
#[idempotent(scope = global, key = parcel)]
#[utoipa::path(
    put,
    path = "/parcels/{parcel}",
    params(("parcel" = String, Path)),
    responses((status = 204, description = "The parcel was received."))
)]
pub(crate) async fn receive_parcel(Path(parcel): Path<String>) -> StatusCode {
    assert!(!parcel.is_empty());
    StatusCode::NO_CONTENT
}

/// Reads orders. A read ignores keys, so its annotation has no effect.
#[idempotent(scope = global)]
#[utoipa::path(get, path = "/orders", responses((status = 200, description = "All orders.")))]
pub(crate) async fn list_orders() -> Json<Vec<Order>> {
    Json(Vec::new())
}

/// An operation without the attribute.
#[utoipa::path(post, path = "/plain", responses((status = 200, description = "Done.")))]
pub(crate) async fn plain() {}

/// In this order, the attribute cannot see the description of the operation.
#[utoipa::path(post, path = "/other-order", responses((status = 200, description = "Done.")))]
#[idempotent(scope = global)]
pub(crate) async fn other_order() {}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Orders",
        version = "1",
        description = "",
        license(name = "MIT"),
        contact()
    ),
    components(responses(SoldOut))
)]
struct Base;

pub(crate) fn router() -> OpenApiRouter {
    OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(place_order, list_orders))
        .routes(routes!(replace_order, remove_order))
        .routes(routes!(receive))
        .routes(routes!(receive_payment))
        .routes(routes!(receive_parcel))
        .routes(routes!(plain))
        .routes(routes!(other_order))
}
