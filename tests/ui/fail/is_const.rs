use axum_idem::idempotent;

#[idempotent(scope = token)]
const fn place_trade(_order: u8) -> u8 {
    1
}

fn main() {}
