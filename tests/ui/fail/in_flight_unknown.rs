use axum_idem::idempotent;

#[idempotent(scope = token, in_flight = queue)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
