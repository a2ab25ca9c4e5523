use axum_idem::idempotent;

#[idempotent(scope = token, record = [2xx, 201, 404])]
async fn place_trade(order: String) -> String {
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
