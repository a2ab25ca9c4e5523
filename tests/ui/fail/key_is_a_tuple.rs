use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = global, key = (hook, delivery))]
async fn deliver(Path((hook, delivery)): Path<(u64, u64)>) -> String {
    format!("{hook} {delivery}")
}

fn main() {}
