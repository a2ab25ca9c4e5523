use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(order: &str) -> String {
    order.to_owned()
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
