use axum_idem::idempotent;

#[idempotent(scope = token, record_rejections, fingerprint = none)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}
