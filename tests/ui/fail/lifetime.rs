use axum_idem::idempotent;

struct Name<'a>(&'a str);

#[idempotent(scope = token)]
async fn place_trade<'a>(name: Name<'a>, order: String) -> String {
    name.0.to_owned() + &order
}

fn main() {}
