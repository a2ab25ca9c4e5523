use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = (token, (account, header("x-workspace-id"))))]
async fn place_trade(Path(account): Path<u64>, order: String) -> String {
    order
}

fn main() {}
