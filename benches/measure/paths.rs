//! All paths on which a request can be served.

use std::future::pending;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::MemoryStore;
use axum_idem::{Idempotency, idempotent};
use tower::{Layer, Service, ServiceExt};

use super::compact::{self, Maps, Moka};
use super::contenders::{Contender, NO_KEY, Order, SAME_KEY, bare, layerless, minimum, protected};

/// The cheapest response to a whole request, which is the lower bound of a replay.
async fn constant(_: Bytes) -> (StatusCode, [(HeaderName, &'static str); 1], &'static str) {
    const ANSWER: &str = concat!(
        r#"{"symbol":"AAPL","side":"buy","quantity":10,"limit":189.25,"note":"nnnnnnnnnnnnnnnnnnnnnnn"#,
        r#"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"#,
        r#"nnnnnnnnnnnnnnnnnnnnnnnn","memo":"booked at the price of the moment, to be settled in two "#,
        r#"days' time, at the latest"}"#,
    );
    let json = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::CREATED, json, ANSWER)
}

/// Holds its key as long as the bench runs.
#[idempotent(scope = token)]
async fn never_ending(Json(_): Json<Order>) -> StatusCode {
    pending().await
}

/// A layer that does nothing, for comparison with a layer that does little.
#[derive(Clone)]
struct Identity;

impl<S> Layer<S> for Identity {
    type Service = IdentityService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdentityService(inner)
    }
}

#[derive(Clone)]
struct IdentityService<S>(S);

impl<S: Service<R>, R> Service<R> for IdentityService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

/// The keys of the refused requests. They differ from the replayed key.
const MISMATCHED: u64 = 1 << 41;
const IN_FLIGHT: u64 = MISMATCHED + 1;

/// The keys of the handler without a layer, which uses the same store.
const LAYERLESS: u64 = 1 << 42;

/// The keys of the observed requests.
#[cfg(feature = "metrics")]
const OBSERVED: u64 = 1 << 43;

/// The paths of a service with metrics.
#[cfg(feature = "metrics")]
fn observed_paths(store: &MemoryStore) -> Vec<Contender> {
    let observed = || super::contenders::observed(store.clone());
    vec![
        Contender::new("no key, metrics", observed(), NO_KEY),
        Contender::new("first sight, metrics", observed(), |n| Some(OBSERVED + n)),
        Contender::new("replay, metrics", observed(), SAME_KEY),
    ]
}

/// The keys of the sealed responses. The store would refuse the other ones, which are not sealed.
#[cfg(feature = "seal")]
const SEALED: u64 = 1 << 44;

/// The paths of a service with a sealed store.
#[cfg(feature = "seal")]
fn sealed_paths(store: &MemoryStore) -> Vec<Contender> {
    use axum_idem::store::{Keys, Sealed};
    let sealed = || {
        let keys = Keys::new().primary(1, [1; 32]);
        super::contenders::protected(Sealed::around(store.clone(), keys))
    };
    vec![
        Contender::new("first sight, sealed", sealed(), |n| Some(SEALED + n)),
        Contender::new("replay, sealed", sealed(), |_| Some(SEALED - 1)),
    ]
}

/// Returns all paths, bare axum first. The paths of the library read and write records in `store`.
pub(crate) async fn paths(store: &MemoryStore, body: &str) -> Vec<Contender> {
    let ours = || protected(store.clone());
    let layerless = || layerless(store.clone());
    let constant = Router::new().route("/trades", post(constant));
    // The lease is long enough for the whole benchmark, because no measured path yields to the task that would
    // renew it.
    let idem = Idempotency::builder()
        .store(store.clone())
        .lease(Duration::from_secs(24 * 60 * 60))
        .build();
    let in_flight = Router::new()
        .route("/trades", post(never_ending))
        .layer(idem);
    let paths = vec![
        Contender::new("bare", bare(), Some),
        Contender::new("bare, identity layer", bare().layer(Identity), NO_KEY),
        Contender::new("no key", ours(), NO_KEY),
        Contender::new("no key, no layer", layerless(), NO_KEY),
        Contender::new("first sight", ours(), Some),
        Contender::new("first sight, no layer", layerless(), |n| {
            Some(LAYERLESS + n)
        }),
        Contender::new("first sight, minimum", minimum(), Some),
        Contender::new("first sight, compact", compact::router::<Moka>(), Some),
        Contender::new("first sight, layer", compact::layered::<Moka>(), Some),
        Contender::new("first sight, maps", compact::router::<Maps>(), Some),
        Contender::new("replay", ours(), SAME_KEY),
        Contender::new("replay, no layer", layerless(), SAME_KEY),
        Contender::new("replay, minimum", minimum(), SAME_KEY),
        Contender::new("replay, compact", compact::router::<Moka>(), SAME_KEY),
        Contender::new("replay, layer", compact::layered::<Moka>(), SAME_KEY),
        Contender::new("replay, maps", compact::router::<Maps>(), SAME_KEY),
        Contender::new("a constant answer", constant, Some),
        Contender::new("mismatch", ours(), |_| Some(MISMATCHED)).answers(StatusCode::CONFLICT),
        Contender::new("in flight", in_flight, |_| Some(IN_FLIGHT)).answers(StatusCode::CONFLICT),
    ];
    #[cfg(feature = "metrics")]
    let paths: Vec<_> = paths.into_iter().chain(observed_paths(store)).collect();
    #[cfg(feature = "seal")]
    let paths: Vec<_> = paths.into_iter().chain(sealed_paths(store)).collect();
    for path in &paths {
        match path.name {
            "mismatch" => {
                let other = path.request(0, &body.replace("AAPL", "MSFT"));
                let first = Contender::new("first", ours(), path.key);
                first.serve(other).await;
            }
            "in flight" => {
                let first = path.router.clone().oneshot(path.request(0, body));
                tokio::spawn(first);
                tokio::task::yield_now().await;
            }
            name if name.starts_with("replay") => {
                path.serve(path.request(0, body)).await;
            }
            _ => {}
        }
    }
    paths
}
