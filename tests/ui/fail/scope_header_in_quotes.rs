use axum_idem::idempotent;

#[idempotent(scope = "x-workspace-id")]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
