use axum_idem::idempotent;

#[idempotent(scope = token, max_run = 90)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
