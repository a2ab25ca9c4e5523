//! Compares this library with other idempotency libraries:
//!
//! ```sh
//! cd benches/peers
//! cargo run --release --ignore-rust-version -- in-process
//! cargo run --release --ignore-rust-version -- loopback
//! cargo run --release --ignore-rust-version -- memory
//! ```
//!
//! Each library is set up as its documentation describes, with a memory store that is large enough.
//! Each wraps the same handler and is followed by `with_state(())`.

#[path = "../../measure/mod.rs"]
mod measure;

use std::env;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum_idempotent::{IdempotentLayer, IdempotentOptions};
use footing::clock::system_clock;
use footing::http::{
    IdempotencyLayer, IdempotencyRuntime, IdempotencyScope, MemoryIdempotencyStore,
};
use rustango::cache::InMemoryCache;
use rustango::idempotency::IdempotencyRouterExt;
use ruts::store::moka::MokaStore;
use ruts::{CookieOptions, SessionLayer};
use tower::util::MapRequestLayer;
use tower_cookies::CookieManagerLayer;

use measure::contenders::{
    Contender, Key, NO_KEY, SAME_KEY, bare, body, minimum, protected, wide_store,
};
use measure::memory::Keeper;
use measure::{line, ratios, setting, shown};

fn main() {
    match env::args().nth(1).as_deref() {
        Some("in-process") => in_process(),
        Some("memory" | "--hold") => {
            measure::memory::run(&keepers());
        }
        _ => measure::loopback::run(all),
    }
}

/// The libraries by name, each with a function that builds a new router.
const LIBRARIES: [(&str, fn() -> Router); 5] = [
    ("axum-idem", || protected(wide_store())),
    ("minimum, by hand", minimum),
    ("axum-idempotent 0.6.0", axum_idempotent),
    ("footing 0.1.0", footing),
    ("rustango 0.62.0", rustango),
];

const WAYS: [(&str, Key); 3] = [
    ("first sight", Some),
    ("replay", SAME_KEY),
    ("no key", NO_KEY),
];

/// This library stores responses in the session of a cookie, and searches all responses of a session
/// for each new response. Therefore each request gets its own session, named after its key.
fn axum_idempotent() -> Router {
    fn with_session(mut request: Request) -> Request {
        let key = request.headers().get("idempotency-key");
        let key = key.map_or(&b"000000000000"[..], HeaderValue::as_bytes);
        let mut cookie = *b"session=AAAAAAAAA000000000000A";
        cookie[17..29].copy_from_slice(&key[key.len() - 12..]);
        let cookie = HeaderValue::from_bytes(&cookie).expect("a cookie");
        request.headers_mut().insert(header::COOKIE, cookie);
        request
    }
    let store = Arc::new(MokaStore::builder().max_capacity(100_000_000).build());
    let cookie = CookieOptions::build().name("session");
    let options = IdempotentOptions::default()
        .use_idempotency_key_header(Some("Idempotency-Key"), false)
        .expire_after(24 * 60 * 60);
    bare()
        .layer(IdempotentLayer::<MokaStore>::new(options))
        .layer(SessionLayer::new(store).with_cookie_options(cookie))
        .layer(CookieManagerLayer::new())
        .layer(MapRequestLayer::new(with_session))
}

/// This library needs an explicit scope.
fn footing() -> Router {
    fn with_scope(mut request: Request) -> Request {
        let token = request.headers()[header::AUTHORIZATION].as_bytes();
        let scope = IdempotencyScope::new(token);
        request.extensions_mut().insert(scope);
        request
    }
    let store = MemoryIdempotencyStore::with_clock_and_max_records(system_clock(), 100_000_000);
    let runtime = IdempotencyRuntime::new(Arc::new(store.expect("a valid capacity")));
    bare()
        .layer(IdempotencyLayer::new(runtime))
        .layer(MapRequestLayer::new(with_scope))
}

fn rustango() -> Router {
    let cache = InMemoryCache::new()
        .with_max_bytes(0)
        .with_max_entries(0)
        .with_max_pinned_bytes(0)
        .with_max_pinned_entries(0);
    bare().idempotency(rustango::idempotency::IdempotencyLayer::new(Arc::new(
        cache,
    )))
}

/// Returns bare axum, and then every kind of request with every library.
fn all() -> Vec<Contender> {
    let mut all = vec![Contender::new("bare", bare(), Some)];
    for (way, key) in WAYS {
        for (library, router) in LIBRARIES {
            let name = format!("{way}, {library}").leak();
            all.push(Contender::new(name, router(), key));
        }
    }
    all
}

fn keepers() -> Vec<Keeper> {
    let keeper = |(name, router)| Keeper { name, router };
    LIBRARIES.map(keeper).into()
}

const REQUESTS: u64 = 200;
const WARM_UP: u64 = 50;

/// Builds each router again in every round, so that its store has few records.
#[tokio::main(flavor = "current_thread")]
async fn in_process() {
    let body = body(200);
    let names: Vec<_> = all().iter().map(|contender| contender.name).collect();
    let mut times: Vec<Vec<f64>> = names.iter().map(|_| Vec::new()).collect();
    for _ in 0..setting("ROUNDS", 200) {
        for (contender, times) in all().into_iter().zip(&mut times) {
            for request in contender.requests(0..WARM_UP, &body) {
                contender.serve(request).await;
            }
            let requests = contender.requests(WARM_UP..WARM_UP + REQUESTS, &body);
            let begun = Instant::now();
            for request in requests {
                contender.serve(request).await;
            }
            times.push(begun.elapsed().as_secs_f64());
        }
    }
    println!("time of a request of 200 B in process, ratio to bare axum");
    for (name, own) in names.iter().zip(&times).skip(1) {
        line(name, &[shown(ratios(own, &times[0]))]);
    }
}
