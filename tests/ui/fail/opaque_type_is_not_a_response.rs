use axum::response::IntoResponse;
use axum_idem::idempotent;

struct Trade(String);

#[idempotent(scope = token)]
async fn place_trade(order: String) -> impl IntoResponse {
    Trade(order)
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
