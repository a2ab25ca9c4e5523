use axum_idem::idempotent;

#[idempotent(scope = token, crate = "axum_idem")]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
