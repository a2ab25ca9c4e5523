use axum::extract::Extension;
use axum_idem::idempotent;

#[derive(Clone)]
struct Delivery;

#[idempotent(scope = global, key = delivery)]
async fn deliver(Extension(delivery): Extension<Option<Delivery>>) {
    let _ = delivery;
}

fn main() {}
