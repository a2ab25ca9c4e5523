use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = global, key = "x-github-delivery")]
async fn deliver(Path(hook): Path<u64>) -> String {
    hook.to_string()
}

#[idempotent(scope = global, key = 7)]
async fn seventh(Path(hook): Path<u64>) -> String {
    hook.to_string()
}

#[idempotent(scope = global, key = String::new())]
async fn empty(Path(hook): Path<u64>) -> String {
    hook.to_string()
}

fn main() {}
