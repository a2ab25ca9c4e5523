use axum_idem::idempotent;

#[idempotent(scope = token, ttl = "0s")]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
