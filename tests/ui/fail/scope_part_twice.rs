use axum_idem::idempotent;

struct User {
    id: u64,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for User {
    type Rejection = ();

    async fn from_request_parts(_: &mut axum::http::request::Parts, _: &S) -> Result<Self, ()> {
        Err(())
    }
}

#[idempotent(scope = (user.id, token, user.id))]
async fn place_trade(user: User, order: String) -> String {
    format!("{order} {}", user.id)
}

fn main() {}
