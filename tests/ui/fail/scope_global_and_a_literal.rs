use axum_idem::idempotent;

#[idempotent(scope = (global, "trades"))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
