use axum_idem::idempotent;

#[idempotent(scope = token, fingerprint = json("amount"))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
