use axum_idem::idempotent;

struct User {
    id: u64,
}

#[idempotent((token, user.id))]
async fn place_trade(user: User, order: String) -> String {
    format!("{order} {}", user.id)
}

fn main() {}
