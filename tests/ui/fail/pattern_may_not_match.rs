use axum::Json;
use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(Some(Json(order)): Option<Json<String>>) -> String {
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
