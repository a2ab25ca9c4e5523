use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(order: String) {
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
