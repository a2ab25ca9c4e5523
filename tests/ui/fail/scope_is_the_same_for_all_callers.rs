use axum_idem::idempotent;

const TENANT: &str = "acme";

#[idempotent(scope = (TENANT, format!("{}", 5)))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
