use std::rc::Rc;

use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(order: String) -> String {
    let shared = Rc::new(order);
    tokio::task::yield_now().await;
    shared.to_string()
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
