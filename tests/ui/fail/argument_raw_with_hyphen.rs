use axum_idem::idempotent;

#[idempotent(scope = token, r#in-flight = reject)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
