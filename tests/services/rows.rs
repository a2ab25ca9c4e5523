//! The rows that several services have, told once.

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

/// A client of a service, by its token.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) server: Server,
    pub(crate) token: &'static str,
}

/// A write, and how what it did can be seen.
#[derive(Clone, Copy)]
pub(crate) struct Creation {
    pub(crate) path: &'static str,
    pub(crate) body: &'static str,
    pub(crate) other_body: &'static str,
    /// The same JSON value as `body`, written otherwise.
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

/// Row 1: the header's name in any case, and no other header.
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

/// Row 3: a read with a key reads, and leaves the key to a write.
pub(crate) async fn reads_ignore_keys(client: Client, creation: Creation) {
    let key = Some("row-3");
    let before = client.send(Method::GET, creation.list, key, "").await;
    let created = client
        .send(Method::POST, creation.path, key, creation.body)
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let after = client.send(Method::GET, creation.list, key, "").await;
    assert_eq!((before.text(), after.status), ("[]", StatusCode::OK));
    assert_ne!(after.text(), "[]", "what was read first is not kept");
    let head = client.send(Method::HEAD, creation.list, key, "").await;
    assert_eq!((head.status, head.text()), (StatusCode::OK, ""));
}

/// Row 4: without a key every request runs.
pub(crate) async fn the_header_is_optional(client: Client, creation: Creation) {
    for _ in 0..2 {
        let answer = client
            .send(Method::POST, creation.path, None, creation.body)
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    assert_eq!(client.count(creation.list).await, 2);
}

/// Row 5: the keys of two callers never meet.
pub(crate) async fn two_callers_do_not_meet(one: Client, other: Client, creation: Creation) {
    for client in [one, other] {
        let answer = client.post(creation.path, "row-5", creation.body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    // A body that differs would be a mismatch under one's own key.
    let answer = other
        .post(creation.path, "row-5b", creation.other_body)
        .await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let answer = one.post(creation.path, "row-5b", creation.body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
}

/// Row 7: the retry gets the first answer, and nothing happens twice. Row 8: with this mark, or none.
pub(crate) async fn a_retry_gets_the_first_answer(
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

/// What the retry's headers have beyond the first answer's. None may be missing or differ.
fn added_headers(first: &HeaderMap, mut retry: HeaderMap) -> HeaderMap {
    for name in first.keys() {
        let values =
            |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        // Of the moment, and so of each answer.
        if name != "date" {
            assert_eq!(values(first), values(&retry), "{name}");
        }
        retry.remove(name);
    }
    retry
}

/// Row 9: another body under the key is refused, and changes nothing for the first request.
pub(crate) async fn another_body_is_a_conflict(client: Client, creation: Creation) -> Answer {
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

/// Row 12: kept for 24 hours to the second, and then free. On a paused clock, which a socket would
/// not wait for.
pub(crate) async fn a_key_lives_for_a_day(router: Router, token: &'static str, creation: Creation) {
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
    assert_eq!(send().await, first, "still kept");
    tokio::time::advance(SECOND).await;
    assert_ne!(send().await, first, "a new resource");
}

/// Row 16: a body is its bytes, so that the same JSON written otherwise is another body.
pub(crate) async fn json_written_otherwise_is_another_body(client: Client, creation: Creation) {
    let parsed = |body| serde_json::from_str::<Value>(body).expect("JSON");
    assert_eq!(parsed(creation.body), parsed(creation.reordered_body));
    client.post(creation.path, "row-16", creation.body).await;
    let reused = client
        .post(creation.path, "row-16", creation.reordered_body)
        .await;
    assert_eq!(reused.status, StatusCode::CONFLICT, "{reused:?}");
    assert_eq!(client.count(creation.list).await, 1);
}

/// Row 17: of many at once, one takes effect. The others get its answer, or are told to wait.
pub(crate) async fn many_at_once_take_effect_once(client: Client, creation: Creation) {
    let requests = (0..50).map(|_| client.post(creation.path, "row-17", creation.body));
    let answers = futures_util::future::join_all(requests).await;
    let created = answers
        .iter()
        .find(|answer| answer.status == StatusCode::CREATED);
    let created = created.expect("one ran");
    for answer in &answers {
        match answer.status {
            StatusCode::CREATED => assert_eq!(answer.body, created.body),
            StatusCode::CONFLICT => assert!(answer.text().contains("idempotency_key_in_flight")),
            _ => panic!("{answer:?}"),
        }
    }
    assert_eq!(client.count(creation.list).await, 1);
}
