use axum::Json;
use axum::extract::Path;
use axum_idem::idempotent;

#[derive(serde::Deserialize)]
struct Order {
    account: String,
}

#[idempotent(scope = order.account)]
async fn place_trade(Path(_account): Path<String>, Json(order): Json<Order>) -> String {
    order.account
}

fn main() {
    let _ = axum::Router::<()>::new().route("/{account}", axum::routing::post(place_trade));
}
