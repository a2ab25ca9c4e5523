use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(order: String) -> String {
    if order.is_empty() {
        return 1;
    }
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
