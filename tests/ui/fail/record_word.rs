use axum_idem::idempotent;

#[idempotent(scope = token, record = success)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
