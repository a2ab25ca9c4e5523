use axum::Json as Payload;
use axum::{Router, routing::post};
use axum_idem::idempotent;

#[derive(serde::Deserialize)]
struct Order {
    account: u64,
}

#[idempotent(scope = order.account)]
async fn place_trade(Payload(order): Payload<Order>) -> String {
    order.account.to_string()
}

fn main() {
    let _: Router = Router::new().route("/", post(place_trade));
}
