use axum_idem::idempotent;

#[idempotent(scope = token, crate = serde)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
