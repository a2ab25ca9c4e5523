use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = global, key = delivery.parse::<u64>().ok()?)]
async fn deliver(Path(delivery): Path<String>) -> String {
    delivery
}

fn main() {}
