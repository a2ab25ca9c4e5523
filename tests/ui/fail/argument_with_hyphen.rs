use axum_idem::idempotent;

#[idempotent(scope = token, in-flight = wait("5s"))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
