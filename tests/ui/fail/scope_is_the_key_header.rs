use axum_idem::idempotent;

#[idempotent(scope = header("Idempotency-Key"))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
