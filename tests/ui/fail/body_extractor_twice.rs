use axum::Json;
use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(name: String, Json(order): Json<String>) -> String {
    name + &order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
