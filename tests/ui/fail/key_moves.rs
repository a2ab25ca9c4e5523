use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = global, key = delivery.into_boxed_str())]
async fn deliver(Path(delivery): Path<String>) -> String {
    delivery
}

fn main() {}
