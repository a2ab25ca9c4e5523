use axum_idem::idempotent;

#[idempotent(scope = (global, header("x-id")), key = header("X-Id"))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
