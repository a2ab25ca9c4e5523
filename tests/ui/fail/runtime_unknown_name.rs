use axum::extract::State;
use axum_idem::idempotent;

#[derive(Clone)]
struct Desk {
    idem: axum_idem::Idempotency,
}

#[idempotent(scope = token, runtime = dsk.idem)]
async fn place_trade(State(desk): State<Desk>, order: String) -> String {
    let _ = desk.idem;
    order
}

fn main() {}
