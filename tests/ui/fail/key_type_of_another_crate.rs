use axum::{extract::FromRequestParts, http::request::Parts};
use axum_idem::idempotent;

struct IdempotencyKey;

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ();

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, ()> {
        Ok(Self)
    }
}

#[idempotent(scope = global, key = header("x-id"))]
async fn receive(_key: IdempotencyKey, event: String) -> String {
    event
}

fn main() {}
