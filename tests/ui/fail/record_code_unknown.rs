use axum_idem::idempotent;

#[idempotent(scope = token, record = [99])]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
