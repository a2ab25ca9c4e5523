use axum_idem::idempotent;

#[idempotent(scope = token, r#scope = global)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
