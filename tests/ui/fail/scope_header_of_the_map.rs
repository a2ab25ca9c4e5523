use axum::http::HeaderMap;
use axum_idem::idempotent;

#[idempotent(scope = headers["x-workspace-id"])]
async fn place_trade(headers: HeaderMap, order: String) -> String {
    format!("{headers:?} {order}")
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
