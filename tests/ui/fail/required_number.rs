use axum_idem::idempotent;

#[idempotent(scope = token, required = 5)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
