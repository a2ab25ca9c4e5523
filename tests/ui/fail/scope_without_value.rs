use axum_idem::idempotent;

#[idempotent(scope)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
