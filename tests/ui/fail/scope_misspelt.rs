use axum_idem::idempotent;

#[idempotent(scop = token)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
