use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = global, key = delivry)]
async fn deliver(Path(delivery): Path<u64>) -> String {
    delivery.to_string()
}

fn main() {}
