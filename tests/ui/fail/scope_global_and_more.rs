use axum_idem::idempotent;

#[idempotent(scope = (global, token))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
