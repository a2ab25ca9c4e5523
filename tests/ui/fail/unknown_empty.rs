use axum_idem::idempotent;

#[idempotent(scope = token, unknown = [])]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
