use axum_idem::idempotent;

#[idempotent(scope = token, ttl "24h")]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
