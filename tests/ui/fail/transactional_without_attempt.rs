use axum_idem::idempotent;

#[idempotent(scope = token, transactional)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
