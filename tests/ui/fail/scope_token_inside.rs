#![deny(warnings)]
use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = format!("{token}-{account}"))]
async fn place_trade(Path(account): Path<u64>, order: String) -> String {
    order
}

fn main() {
    let _ = place_trade;
}
