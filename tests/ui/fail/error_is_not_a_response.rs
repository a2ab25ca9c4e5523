use axum_idem::idempotent;

struct TradeError;

#[idempotent(scope = token)]
async fn place_trade(order: String) -> Result<String, TradeError> {
    Ok(order)
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
