use axum_idem::idempotent;

#[idempotent(scope = token, unknown = [2xx, 504])]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
