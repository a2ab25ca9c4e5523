use axum_idem::idempotent;

#[idempotent(scope = token, ttl = "24 hourz")]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
