use axum_idem::idempotent;

#[idempotent(scope = token, key = token)]
async fn deliver() -> &'static str {
    "done"
}

fn main() {}
