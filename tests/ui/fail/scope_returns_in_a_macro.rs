use axum_idem::idempotent;

macro_rules! leave {
    () => {
        return
    };
}

struct User {
    is_guest: bool,
    name: String,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for User {
    type Rejection = ();

    async fn from_request_parts(_: &mut axum::http::request::Parts, _: &S) -> Result<Self, ()> {
        Err(())
    }
}

#[idempotent(scope = {
    if user.is_guest {
        leave!();
    }
    user.name.clone()
})]
async fn place_trade(user: User, order: String) -> String {
    user.name + &order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}
