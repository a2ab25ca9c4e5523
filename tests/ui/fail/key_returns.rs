use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = global, key = {
    if delivery.is_empty() {
        return;
    }
    delivery.as_str()
})]
async fn deliver(Path(delivery): Path<String>) -> String {
    delivery
}

fn main() {
    let _ = axum::Router::<()>::new().route("/{delivery}", axum::routing::post(deliver));
}
