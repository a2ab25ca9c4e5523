use axum_idem::idempotent;

#[idempotent(scope = global, key = header("x github delivery"))]
async fn deliver() {}

#[idempotent(scope = global, key = header)]
async fn nameless() {}

fn main() {}
