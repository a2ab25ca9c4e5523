use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade<T>(order: T) -> String {
    format!("{order}")
}

fn main() {}
