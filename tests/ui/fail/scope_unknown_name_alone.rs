use axum_idem::idempotent;

struct User {
    id: u64,
    tags: Vec<String>,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for User {
    type Rejection = ();

    async fn from_request_parts(_: &mut axum::http::request::Parts, _: &S) -> Result<Self, ()> {
        Err(())
    }
}

#[idempotent(scope = account)]
async fn place_trade(user: User, order: String) -> String {
    let _ = (user.id, user.tags);
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
