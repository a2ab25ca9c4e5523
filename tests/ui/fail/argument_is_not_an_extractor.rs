use axum_idem::idempotent;

struct Order(String);

#[idempotent(scope = token)]
async fn place_trade(order: Order) -> String {
    order.0
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
