use axum::{Json, extract::Path};
use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(Path(id): Path<u64>, Json((id, amount)): Json<(u64, u64)>) -> String {
    format!("{amount} for {id}")
}

fn main() {}
