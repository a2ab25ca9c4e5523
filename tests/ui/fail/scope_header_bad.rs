use axum_idem::idempotent;

#[idempotent(scope = header("bad header"))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
