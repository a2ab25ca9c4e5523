use axum_idem::idempotent;

#[idempotent(scope = token, in_flight = wait("soon"))]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
