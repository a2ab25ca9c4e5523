use axum_idem::idempotent;

#[idempotent(scope = token)]
#[idempotent(ttl = "24h")]
async fn place_trade(order: String) -> String {
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
