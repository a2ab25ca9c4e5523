use axum_idem::idempotent;

struct User {
    name: String,
}

impl User {
    fn into_name(self) -> String {
        self.name
    }
}

#[idempotent(scope = user.into_name())]
async fn place_trade(user: User, order: String) -> String {
    user.name + &order
}

fn main() {}
