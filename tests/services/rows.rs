//! The rows that several services share.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;

use crate::support::{Answer, KEY, Server, request};

const SECOND: Duration = Duration::from_secs(1);
const ALMOST_A_DAY: Duration = Duration::from_secs(24 * 60 * 60 - 1);

/// A client of a service with its token.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) server: Server,
    pub(crate) token: &'static str,
}

/// A write, and a list that shows its effect.
#[derive(Clone, Copy)]
pub(crate) struct Creation {
    pub(crate) path: &'static str,
    pub(crate) body: &'static str,
    pub(crate) other_body: &'static str,
    /// The same JSON value as `body`, formatted differently.
    pub(crate) reordered_body: &'static str,
    /// Lists one entry for each creation.
    pub(crate) list: &'static str,
}

impl Client {
    pub(crate) async fn send(
        self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> Answer {
        self.server
            .send(self.request(method, path, key, body))
            .await
    }

    pub(crate) async fn post(self, path: &str, key: &str, body: &str) -> Answer {
        self.send(Method::POST, path, Some(key), body).await
    }

    pub(crate) async fn get(self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, None, "").await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    pub(crate) async fn count(self, list: &str) -> usize {
        self.get(list).await.as_array().expect("a list").len()
    }

    fn request(
        self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> Request<Full<Bytes>> {
        let token = format!("Bearer {}", self.token);
        let mut headers = vec![(AUTHORIZATION.as_str(), token.as_str())];
        headers.extend(key.map(|key| (KEY, key)));
        if !body.is_empty() {
            headers.push((CONTENT_TYPE.as_str(), "application/json"));
        }
        request(method, path, headers, body)
    }
}

/// Row 1: the header name is not case-sensitive, and no other header counts.
pub(crate) async fn the_header_is_idempotency_key(client: Client, creation: Creation) {
    for name in ["Idempotency-Key", "IDEMPOTENCY-KEY", "X-Idempotency-Key"] {
        let mut request = client.request(Method::POST, creation.path, None, creation.body);
        let name: http::HeaderName = name.parse().expect("a name");
        request
            .headers_mut()
            .insert(name, "row-1".parse().expect("a value"));
        assert!(client.server.send(request).await.status.is_success());
    }
    assert_eq!(client.count(creation.list).await, 2);
}

/// Row 3: a read with a key runs normally and does not use up the key.
pub(crate) async fn reads_ignore_keys(client: Client, creation: Creation) {
    let key = Some("row-3");
    let before = client.send(Method::GET, creation.list, key, "").await;
    let created = client
        .send(Method::POST, creation.path, key, creation.body)
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let after = client.send(Method::GET, creation.list, key, "").await;
    assert_eq!((before.text(), after.status), ("[]", StatusCode::OK));
    assert_ne!(after.text(), "[]", "a read must not be recorded");
    let head = client.send(Method::HEAD, creation.list, key, "").await;
    assert_eq!((head.status, head.text()), (StatusCode::OK, ""));
}

/// Row 4: every request without a key runs.
pub(crate) async fn the_header_is_optional(client: Client, creation: Creation) {
    for _ in 0..2 {
        let answer = client
            .send(Method::POST, creation.path, None, creation.body)
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    assert_eq!(client.count(creation.list).await, 2);
}

/// Row 5: the keys of two callers are separate.
pub(crate) async fn keys_of_two_callers_are_separate(
    one: Client,
    other: Client,
    creation: Creation,
) {
    for client in [one, other] {
        let answer = client.post(creation.path, "row-5", creation.body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    // Under the caller's own key, a different body would be a mismatch.
    let answer = other
        .post(creation.path, "row-5b", creation.other_body)
        .await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let answer = one.post(creation.path, "row-5b", creation.body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
}

/// Row 7: a retry gets the first response and has no effect. Row 8: the replay has this header, or
/// none.
pub(crate) async fn a_retry_gets_the_first_response(
    client: Client,
    creation: Creation,
    mark: Option<&str>,
) {
    let first = client.post(creation.path, "row-7", creation.body).await;
    let retry = client.post(creation.path, "row-7", creation.body).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert_eq!((first.status, &first.body), (retry.status, &retry.body));
    assert_eq!(client.count(creation.list).await, 1);

    let added = added_headers(&first.headers, retry.headers);
    match mark {
        Some(mark) => {
            assert_eq!(added[mark], "true");
            assert_eq!(added["cache-control"], "no-store");
            assert_eq!(added.len(), 2, "{added:?}");
        }
        None => assert!(added.is_empty(), "{added:?}"),
    }
}

/// Returns the headers that only the retry has. All headers of the first response must be in the retry.
fn added_headers(first: &HeaderMap, mut retry: HeaderMap) -> HeaderMap {
    for name in first.keys() {
        let values =
            |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        // The date differs in each response.
        if name != "date" {
            assert_eq!(values(first), values(&retry), "{name}");
        }
        retry.remove(name);
    }
    retry
}

/// Row 9: a different body under the same key is refused, and the record does not change.
pub(crate) async fn a_different_body_is_a_conflict(client: Client, creation: Creation) -> Answer {
    let first = client.post(creation.path, "row-9", creation.body).await;
    let reused = client
        .post(creation.path, "row-9", creation.other_body)
        .await;
    assert_eq!(reused.status, StatusCode::CONFLICT, "{reused:?}");
    let retry = client.post(creation.path, "row-9", creation.body).await;
    assert_eq!((first.status, first.body), (retry.status, retry.body));
    assert_eq!(client.count(creation.list).await, 1);
    reused
}

/// Row 12: a record lives for exactly 24 hours, and then the key is free. Sockets would not follow the
/// paused clock, so this test calls the router directly.
pub(crate) async fn a_record_lives_for_a_day(
    router: Router,
    token: &'static str,
    creation: Creation,
) {
    let server = Server(([127, 0, 0, 1], 0).into());
    let client = Client { server, token };
    let send = async || {
        let request = client.request(Method::POST, creation.path, Some("row-12"), creation.body);
        let answer = router
            .clone()
            .oneshot(request.map(Body::new))
            .await
            .expect("infallible");
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes()
    };
    let first = send().await;
    tokio::time::advance(ALMOST_A_DAY).await;
    assert_eq!(send().await, first, "the record still exists");
    tokio::time::advance(SECOND).await;
    assert_ne!(send().await, first, "the handler creates a new resource");
}

/// Row 16: the bytes of a body count, so reformatted JSON is a different body.
pub(crate) async fn reformatted_json_is_a_different_body(client: Client, creation: Creation) {
    let parsed = |body| serde_json::from_str::<Value>(body).expect("JSON");
    assert_eq!(parsed(creation.body), parsed(creation.reordered_body));
    client.post(creation.path, "row-16", creation.body).await;
    let reused = client
        .post(creation.path, "row-16", creation.reordered_body)
        .await;
    assert_eq!(reused.status, StatusCode::CONFLICT, "{reused:?}");
    assert_eq!(client.count(creation.list).await, 1);
}

/// Row 17: of many concurrent requests, one takes effect. The others get its response or a 409.
pub(crate) async fn concurrent_requests_take_effect_once(client: Client, creation: Creation) {
    let requests = (0..50).map(|_| client.post(creation.path, "row-17", creation.body));
    let answers = futures_util::future::join_all(requests).await;
    let created = answers
        .iter()
        .find(|answer| answer.status == StatusCode::CREATED);
    let created = created.expect("one request ran");
    for answer in &answers {
        match answer.status {
            StatusCode::CREATED => assert_eq!(answer.body, created.body),
            StatusCode::CONFLICT => assert!(answer.text().contains("idempotency_key_in_flight")),
            _ => panic!("{answer:?}"),
        }
    }
    assert_eq!(client.count(creation.list).await, 1);
}
