use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(Path(account): Path<&str>, order: String) -> String {
    order
}

fn main() {}
