use axum::extract::Path;
use axum_idem::idempotent;

async fn find(hook: u64) -> u64 {
    hook
}

#[idempotent(scope = global, key = find(hook).await)]
async fn deliver(Path(hook): Path<u64>) -> String {
    hook.to_string()
}

fn main() {}
