use axum_idem::idempotent;

#[idempotent(
    ttl = 24,
    required = 5,
    record = [7xx, 99],
    in_flight = queue,
    fingerprint = md5,
    on_unknown = retry,
    scop = token,
)]
fn place_trade(order: String) -> String {
    order
}

fn main() {}
