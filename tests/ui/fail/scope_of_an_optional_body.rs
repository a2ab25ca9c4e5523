use axum::Json;
use axum_idem::idempotent;

#[idempotent(scope = format!("{order:?}"))]
async fn place_trade(order: Option<Json<u8>>) -> String {
    format!("{order:?}")
}

fn main() {}
