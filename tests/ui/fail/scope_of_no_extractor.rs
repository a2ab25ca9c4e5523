use axum_idem::idempotent;

struct Order {
    account: u64,
}

#[idempotent(scope = order.account)]
async fn place_trade(order: Order) -> String {
    order.account.to_string()
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
