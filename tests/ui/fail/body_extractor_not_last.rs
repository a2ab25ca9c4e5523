use axum::Json;
use axum::extract::State;
use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(Json(order): Json<String>, State(_desk): State<()>) -> String {
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
