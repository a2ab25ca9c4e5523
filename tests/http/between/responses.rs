//! What is recorded is the handler's own response, and replays pass the layers again.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::Entry;
use axum_idem::{DoNotRecord, Idempotency, Scope, idempotent};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tower_http::compression::CompressionLayer;

use super::{App, Commit, Unit, routes, start_with, unit_of_work};
use crate::support::{KEY, Runs, Server, request};

/// Numbers each response.
fn numbering() -> impl Fn(Router) -> Router {
    let count = Arc::new(AtomicUsize::new(0));
    move |router| {
        let count = count.clone();
        router.layer(map_response(move |mut response: Response| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let headers = response.headers_mut();
            headers.insert("x-number", HeaderValue::from(number));
            async { response }
        }))
    }
}

#[tokio::test]
async fn replays_pass_the_layers_again_and_the_record_has_none_of_their_headers() {
    let setup = start_with(Idempotency::in_memory(), numbering()).await;
    for number in ["1", "2", "3"] {
        let answer = setup.post("/book").await;
        assert_eq!(answer.headers["x-number"], number);
        assert_eq!(
            (answer.text(), answer.is_replay()),
            ("run 1, attempt 1", number != "1")
        );
    }
    let Some(Entry::Recorded { record, .. }) = setup.stored().await else {
        panic!("it is recorded");
    };
    assert_eq!(
        (record.status().as_u16(), record.body()),
        (201, Bytes::from("run 1, attempt 1"))
    );
    assert!(!format!("{record:?}").contains("x-number"));
    assert_eq!(setup.app.books.rows(), ["row 1"]);
}

#[tokio::test]
async fn a_compressed_response_is_recorded_as_the_handler_sent_it() {
    #[idempotent(scope = global)]
    async fn long() -> String {
        "a".repeat(4096)
    }
    let idem = Idempotency::in_memory();
    let router = Router::new()
        .route("/", post(long))
        .layer(CompressionLayer::new())
        .layer(idem.clone());
    let server = Server::start(router).await;
    for encoding in ["gzip", "identity", "gzip"] {
        let headers = [(KEY, "k"), ("accept-encoding", encoding)];
        let answer = server
            .send(request(http::Method::POST, "/", headers, ""))
            .await;
        assert_eq!(
            answer.headers.contains_key("content-encoding"),
            encoding == "gzip"
        );
        assert_eq!(answer.body.len() == 4096, encoding == "identity");
    }
    let id = idem.record_id(&Scope::new(), "k");
    let Ok(Some(Entry::Recorded { record, .. })) = idem.look_up(id).await else {
        panic!("it is recorded");
    };
    assert_eq!(record.body().len(), 4096);
}

/// A layer may throw the whole response away. The slot is no part of it.
#[tokio::test]
async fn a_layer_that_replaces_the_response_does_not_lose_the_record() {
    let replaces = map_response(|_: Response| async { (StatusCode::ACCEPTED, "replaced") });
    let setup = start_with(Idempotency::in_memory(), |router| router.layer(replaces)).await;
    for _ in 0..3 {
        let answer = setup.post("/book").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (202, "replaced"));
    }
    let Some(Entry::Recorded { record, .. }) = setup.stored().await else {
        panic!("it is recorded");
    };
    assert_eq!(
        (record.status().as_u16(), record.body()),
        (201, Bytes::from("run 1, attempt 1"))
    );
    assert_eq!(setup.app.runs.started(), 1);
}

/// A layer may drop what it does not know, on the way in too. Without the slot, the handler settles.
#[tokio::test]
async fn a_layer_that_drops_the_extensions_of_the_request_still_gets_its_key_refused() {
    let drops = |mut request: Request, next: Next| {
        request.extensions_mut().clear();
        next.run(request)
    };
    let app = App::default();
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(from_fn(drops))
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    let refused = server.post("/book", "k", "").await;
    assert_eq!(refused.code(), "idempotency_not_installed");
    assert_eq!(app.runs.started(), 0);
}

#[tokio::test]
async fn a_layers_status_that_is_not_recorded_frees_the_key() {
    for (handlers, layers, is_free) in [
        (201, 202, false),
        (201, 503, true),
        (201, 401, true),
        (404, 200, false),
        (404, 410, false),
        (404, 500, true),
        // The handler's own response is not recorded, whatever its layers make of it.
        (503, 200, true),
    ] {
        let layers = StatusCode::from_u16(layers).expect("a status");
        let changes = map_response(move |mut response: Response| async move {
            *response.status_mut() = layers;
            response
        });
        let setup = start_with(Idempotency::in_memory(), |router| router.layer(changes)).await;
        let path = format!("/status/{handlers}");
        assert_eq!(setup.post(&path).await.status, layers);
        let what = format!("{handlers}, then {layers}");
        assert_eq!(setup.stored().await.is_none(), is_free, "{what}");
        let retry = setup.post(&path).await;
        assert_eq!(
            (retry.status, retry.is_replay()),
            (layers, !is_free),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_layer_can_keep_a_response_out_of_the_store() {
    let opts_out = map_response(|response: Response| async { (DoNotRecord, response) });
    let setup = start_with(Idempotency::in_memory(), |router| router.layer(opts_out)).await;
    for run in ["run 1, attempt 1", "run 2, attempt 1"] {
        assert_eq!(setup.post("/book").await.text(), run);
        assert!(setup.stored().await.is_none());
    }
}

#[idempotent(scope = global)]
async fn opted_out(State(runs): State<Runs>) -> (StatusCode, DoNotRecord, String) {
    (StatusCode::OK, DoNotRecord, runs.count().to_string())
}

/// The length is not known, and the body has trailers.
#[idempotent(scope = global)]
async fn with_trailers(
    State(runs): State<Runs>,
    axum::Extension(unit): axum::Extension<Unit>,
) -> Response {
    unit.insert(format!("row {}", runs.count()));
    let trailers = HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from(7))]);
    let frames = [Frame::data(Bytes::from("data")), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    Response::new(Body::new(body))
}

#[idempotent(scope = global)]
async fn events(
    State(runs): State<Runs>,
    axum::Extension(unit): axum::Extension<Unit>,
) -> Response {
    unit.insert(format!("row {}", runs.count()));
    let events = stream::iter(["data: 1\n\n", "data: 2\n\n"].map(Ok::<_, Infallible>));
    (
        [("content-type", "text/event-stream")],
        Body::from_stream(events),
    )
        .into_response()
}

async fn start_streams() -> (Server, App) {
    let app = App::default();
    let router = Router::new()
        .route("/opted-out", post(opted_out))
        .route("/trailers", post(with_trailers))
        .route("/events", post(events))
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(Idempotency::in_memory());
    (Server::start(router).await, app)
}

#[tokio::test]
async fn a_handler_can_keep_its_response_out_of_the_store_behind_layers() {
    let (server, _) = start_streams().await;
    for run in ["1", "2"] {
        assert_eq!(server.post("/opted-out", "k", "").await.text(), run);
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_recorded_reaches_its_client_and_its_handler_runs_once() {
    for (path, body) in [("/trailers", "data"), ("/events", "data: 1\n\ndata: 2\n\n")] {
        let (server, app) = start_streams().await;
        assert_eq!(server.post(path, "k", "").await.text(), body);
        let retry = server.post(path, "k", "").await;
        assert_eq!(retry.code(), "idempotency_response_not_kept");
        assert_eq!(app.books.rows(), ["row 1"]);
    }
}

#[tokio::test]
async fn a_commit_that_fails_under_a_stream_frees_the_key() {
    for path in ["/trailers", "/events"] {
        let (server, app) = start_streams().await;
        let failure = StatusCode::INTERNAL_SERVER_ERROR;
        app.books.next_commit(Commit::Fails(failure));
        assert_eq!(server.post(path, "k", "").await.status, failure);
        assert_eq!(server.post(path, "k", "").await.status, 200);
        assert_eq!(app.books.rows(), ["row 2"]);
    }
}
