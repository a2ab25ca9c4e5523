//! A retry that is refused after the first try has run and its response was lost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body_util::Full;
use idem_client::{ResponseExt as _, RetryLayer, headers::IDEMPOTENCY_KEY};
use test_support::http::{Runs, Server};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceBuilder, ServiceExt as _};

use crate::{client, eager};

/// The token of this caller. The first payment makes the old token expire.
#[derive(Clone, Debug, Default)]
struct Login(Arc<AtomicBool>);

struct Caller {
    id: u64,
}

impl FromRequestParts<(Runs, Login)> for Caller {
    type Rejection = StatusCode;

    async fn from_request_parts(
        parts: &mut Parts,
        (_, login): &(Runs, Login),
    ) -> Result<Self, StatusCode> {
        let token = parts.headers.get(http::header::AUTHORIZATION);
        let is_old = token.is_some_and(|token| token == "Bearer old");
        if is_old && login.0.load(Ordering::SeqCst) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        Ok(Self { id: 7 })
    }
}

#[idempotent(scope = caller.id)]
async fn pay(
    caller: Caller,
    State((runs, login)): State<(Runs, Login)>,
    amount: String,
) -> (StatusCode, String) {
    login.0.store(true, Ordering::SeqCst);
    runs.count();
    (StatusCode::CREATED, amount)
}

/// A service that refuses the old token after the first payment. With a status, a layer refuses it, as after a deploy that
/// has changed a permission or a route.
fn service(runs: &Runs, refused_by_a_layer: Option<StatusCode>) -> Router {
    let login = Login::default();
    let router = Router::new()
        .route("/", post(pay))
        .layer(Idempotency::in_memory())
        .with_state((runs.clone(), login.clone()));
    let Some(status) = refused_by_a_layer else {
        return router;
    };
    router.layer(from_fn(
        move |request: axum::extract::Request, next: Next| {
            let token = request.headers().get(http::header::AUTHORIZATION);
            let is_old = token.is_some_and(|token| token == "Bearer old");
            let is_refused = is_old && login.0.load(Ordering::SeqCst);
            async move {
                if is_refused {
                    return status.into_response();
                }
                next.run(request).await
            }
        },
    ))
}

/// Passes connections on to the server, and closes the first one when the server responds.
async fn losing_the_first_response(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    tokio::spawn(async move {
        let mut is_first = true;
        while let Ok((mut from_client, _)) = listener.accept().await {
            let mut to_server = TcpStream::connect(server).await.expect("it listens");
            let loses = std::mem::take(&mut is_first);
            tokio::spawn(async move {
                if loses {
                    let (mut requests, _to_client) = from_client.split();
                    let (responses, mut forwarded) = to_server.split();
                    tokio::select! {
                        _ = tokio::io::copy(&mut requests, &mut forwarded) => {}
                        _ = responses.readable() => {}
                    }
                } else {
                    copy_bidirectional(&mut from_client, &mut to_server)
                        .await
                        .ok();
                }
            });
        }
    });
    address
}

const REFUSALS: [Option<StatusCode>; 4] = [
    None,
    Some(StatusCode::UNAUTHORIZED),
    Some(StatusCode::FORBIDDEN),
    Some(StatusCode::NOT_FOUND),
];

#[tokio::test]
async fn a_repeat_after_a_refused_retry_is_a_replay() {
    for refused_by_a_layer in REFUSALS {
        let runs = Runs::default();
        let server = Server::start(service(&runs, refused_by_a_layer)).await;
        let url = format!("http://{}/", losing_the_first_response(server.0).await);
        let client = client();
        let pay = |token: &str| client.post(&url).bearer_auth(token).body("12.50");

        let refused = pay("old").send().await.expect("a response");
        let expected = refused_by_a_layer.unwrap_or(StatusCode::UNAUTHORIZED);
        assert_eq!((refused.status(), refused.tries()), (expected, 2));
        assert!(refused.is_outcome_unknown(), "{expected}");
        assert_eq!(runs.started(), 1, "the first try has run");

        let key = refused.idempotency_key().expect("a key").to_owned();
        let repeated = pay("new").header(IDEMPOTENCY_KEY, key).send().await;
        let repeated = repeated.expect("a response");
        assert_eq!(repeated.status(), StatusCode::CREATED);
        assert!(repeated.replayed() && !repeated.is_outcome_unknown());
        assert_eq!(runs.started(), 1, "the repeat is no second payment");

        // Nothing is lost now, so a refusal is the outcome.
        let refused = pay("old").send().await.expect("a response");
        assert_eq!((refused.status(), refused.tries()), (expected, 1));
        assert!(!refused.is_outcome_unknown(), "{expected}");
    }
}

#[tokio::test]
async fn the_tower_layer_reports_a_refused_retry_too() {
    for refused_by_a_layer in REFUSALS {
        let (runs, lost) = (Runs::default(), Arc::<AtomicBool>::default());
        let router = service(&runs, refused_by_a_layer);
        let losing = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let (router, is_first) = (router.clone(), !lost.swap(true, Ordering::SeqCst));
            async move {
                let response: Response = router.oneshot(request).await.expect("infallible");
                if is_first {
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset));
                }
                Ok(response)
            }
        });
        let layer = RetryLayer::new(eager());
        let client = ServiceBuilder::new().layer(layer).service(losing);
        let pay = async |token: &str, key: Option<&str>| {
            let mut request = Request::post("/").header("authorization", format!("Bearer {token}"));
            if let Some(key) = key {
                request = request.header(IDEMPOTENCY_KEY, key);
            }
            let request = request.body(Full::from("12.50")).expect("a request");
            client.clone().oneshot(request).await.expect("a response")
        };
        let refused = pay("old", None).await;
        let expected = refused_by_a_layer.unwrap_or(StatusCode::UNAUTHORIZED);
        assert_eq!((refused.status(), refused.tries()), (expected, 2));
        assert!(refused.is_outcome_unknown(), "{expected}");
        let repeated = pay("new", refused.idempotency_key()).await;
        assert!(repeated.replayed() && !repeated.is_outcome_unknown());
        assert_eq!(runs.started(), 1);
    }
}
