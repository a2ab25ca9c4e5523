#![deny(warnings)]
use axum::extract::Path;
use axum::{Router, routing::post};
use axum_idem::{IdempotencyKey, idempotent};

macro_rules! handler {
    ($name:ident, $account:ident, $scope:expr, $ttl:literal, $wait:literal, $code:literal) => {
        #[idempotent(scope = $scope, ttl = $ttl, in_flight = wait($wait), record = [2xx, $code])]
        async fn $name(Path($account): Path<u64>, order: String) -> String {
            format!("{order} {}", $account)
        }
    };
}

handler!(place_trade, account, (token, account), "1h", "5s", 503);
handler!(
    cancel_trade,
    account,
    header("x-workspace-id"),
    "2h",
    "6s",
    502
);

macro_rules! hook {
    ($(#[$meta:meta])* $vis:vis $name:ident, $key:ty, $body:ty, $block:block) => {
        $(#[$meta])*
        #[idempotent(scope = global, key = header("x-id"))]
        $vis async fn $name(key: $key, _: $body) -> String {
            let _: Option<IdempotencyKey> = key.into();
            $block
        }
    };
}

hook!(
    /// Takes its key.
    pub hooked, IdempotencyKey, String, { "taken".to_owned() }
);
hook!(pub(crate) maybe_hooked, Option<IdempotencyKey>, axum::Json<u64>, { "maybe".to_owned() });

/// A unit test passes the key with one `.into()`, also as the last argument.
#[idempotent(scope = global, key = header("x-id"))]
async fn key_is_last(_: Option<IdempotencyKey>, key: IdempotencyKey) -> String {
    key.to_string()
}

/// Two names of the same text. The handler of the macro binds another one.
macro_rules! scoped {
    ($name:ident, $id:ident) => {
        #[idempotent(scope = (id, $id))]
        async fn $name(Path(id): Path<u64>, axum::Extension($id): axum::Extension<u8>, _: String) {}
    };
}
scoped!(twice_id, id);

pub fn main() {
    drop(key_is_last(None.into(), IdempotencyKey::new("k").into()));
    drop(hooked(
        IdempotencyKey::new("k").into(),
        String::new().into(),
    ));
    drop(maybe_hooked(None.into(), axum::Json(7).into()));
    let _: Router = Router::new().route("/{id}", post(twice_id));
    let _: Router = Router::new().route("/{account}", post(place_trade).delete(cancel_trade));
}
