//! A client that sends new keys, retries, and the mistakes that clients make.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::support::{self, Answer, KEY, Server};
use crate::tally::Tally;

/// Opens a new connection when the old connection breaks.
struct Client {
    server: Server,
    sender: Option<SendRequest<Full<bytes::Bytes>>>,
    tally: Arc<Tally>,
    path: &'static str,
}

/// Sends requests until the soak is over.
pub(crate) async fn send(server: Server, number: usize, seed: u64, tally: Arc<Tally>) {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(31) + number as u64);
    let mut client = Client {
        server,
        sender: None,
        path: if number.is_multiple_of(3) {
            "/redis"
        } else {
            "/memory"
        },
        tally,
    };
    while !client.tally.is_over() {
        let key = client.tally.runs.new_key();
        let body = body(&mut random);
        match random.u8(..10) {
            0 => client.disconnect(key, &body).await,
            1 => client.duplicates(key, &body).await,
            2 => client.without_a_key(&body).await,
            _ => {}
        }
        client.write(key, &body, random.u8(1..4)).await;
        if random.u8(..10) == 0 {
            client.mismatch(key, &body).await;
        }
    }
}

fn body(random: &mut fastrand::Rng) -> String {
    let first = if random.u8(..8) == 0 { 'w' } else { 'x' };
    let len = random.usize(..2_000);
    let rest = std::iter::repeat_with(|| random.lowercase());
    std::iter::once(first).chain(rest.take(len)).collect()
}

impl Client {
    /// Sends a request `retries` times and expects the same response each time.
    async fn write(&mut self, key: usize, body: &str, retries: u8) {
        let mut is_answered = false;
        for _ in 0..retries {
            let Some(answer) = self.until_answered(key, body).await else {
                // A full store refuses new keys, but it must not forget a record.
                assert!(!is_answered, "{key} had a response and is now refused");
                return;
            };
            assert_eq!(answer.text(), body, "{key} got a different response");
            assert!(
                answer.is_replay() || !is_answered,
                "the response of {key} was lost"
            );
            assert_eq!(self.tally.runs.of(key), 1, "{key}");
            is_answered = true;
            self.tally.count(if answer.is_replay() {
                "replays"
            } else {
                "runs"
            });
        }
    }

    /// Returns the response, or `None` when a full store refuses a new key.
    async fn until_answered(&mut self, key: usize, body: &str) -> Option<Answer> {
        loop {
            let answer = self.post(Some(key), body).await;
            if answer.status == StatusCode::CREATED {
                return Some(answer);
            }
            let what = match answer.code().as_str() {
                "idempotency_key_in_flight" => "refused: in flight",
                "idempotency_store_unavailable" => "refused: store away",
                "idempotency_capacity" => {
                    self.tally.count("refused: full");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    return None;
                }
                code => panic!("{key} got {code}"),
            };
            self.tally.count(what);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a request and closes the connection.
    async fn disconnect(&mut self, key: usize, body: &str) {
        let request = support::post_bytes(self.path, &key.to_string(), body);
        drop(self.server.write(request).await);
        self.tally.count("disconnects");
    }

    /// Sends four equal requests at the same time.
    async fn duplicates(&mut self, key: usize, body: &str) {
        let requests: Vec<_> = (0..4)
            .map(|_| {
                let (server, path) = (self.server, self.path);
                let (key, body) = (key.to_string(), body.to_owned());
                tokio::spawn(async move { server.post(path, &key, &body).await })
            })
            .collect();
        for request in requests {
            let answer = request.await.expect("no panic");
            assert!(
                matches!(answer.status.as_u16(), 201 | 409 | 503),
                "{answer:?}"
            );
            self.tally.count("duplicates at once");
        }
    }

    /// The handler extracts a key, so a request without a key is refused.
    async fn without_a_key(&mut self, body: &str) {
        assert_eq!(
            self.post(None, body).await.code(),
            "idempotency_key_missing"
        );
        self.tally.count("without a key");
    }

    async fn mismatch(&mut self, key: usize, body: &str) {
        // When the first request was refused, this request would be the first.
        if self.tally.runs.of(key) == 0 {
            return;
        }
        let answer = self.post(Some(key), &format!("{body}!")).await;
        let code = answer.code();
        if code == "idempotency_key_reused" {
            self.tally.count("mismatches");
        } else {
            assert_eq!(code, "idempotency_store_unavailable", "{key}");
        }
    }

    async fn post(&mut self, key: Option<usize>, body: &str) -> Answer {
        let key = key.map(|key| key.to_string());
        let headers = key.as_deref().map(|key| (KEY, key));
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let io = TokioIo::new(self.server.connect().await);
            let (sender, connection) = http1::handshake(io).await.expect("HTTP/1");
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        let sender = self.sender.as_mut().expect("connected above");
        let request = support::request(Method::POST, self.path, headers, body);
        sender.ready().await.expect("the connection is open");
        let (parts, body) = sender
            .send_request(request)
            .await
            .expect("a response")
            .into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a whole body").to_bytes(),
        }
    }
}
