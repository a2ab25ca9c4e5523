//! Tests the client on real sockets, against servers that fail in unusual ways.

mod support;

use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};
use idem_client::{ClientBuilder, Failure, Policy, Reason, ResponseExt as _};
use reqwest_middleware::ClientWithMiddleware;
use support::{Reply, Scripted};

const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
const TEMPORARY: [&str; 4] = [
    "408 Request Timeout",
    "425 Too Early",
    "429 Too Many Requests",
    "503 Service Unavailable",
];

fn client(policy: Policy) -> ClientWithMiddleware {
    let policy = policy.waits(Duration::from_millis(1), Duration::from_millis(4));
    let client = ClientBuilder::default().policy(policy).build();
    client.expect("a client")
}

/// A body with every byte, which does not fit into one packet.
fn body() -> Vec<u8> {
    (0..=u8::MAX).cycle().take(200_000).collect()
}

/// All requests have the same key and the same body.
fn assert_equal_requests(server: &Scripted, requests: usize) {
    let (keys, bodies) = (server.keys(), server.bodies());
    assert_eq!((keys.len(), bodies.len()), (requests, requests));
    assert!(keys[0].is_some() && keys.iter().all(|key| *key == keys[0]));
    assert!(bodies.iter().all(|sent| *sent == body()));
}

fn refusal(status: &str, retry_after: &str) -> String {
    format!("HTTP/1.1 {status}\r\nretry-after: {retry_after}\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn an_unreadable_or_past_retry_after_does_not_prevent_the_retry() {
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    for status in TEMPORARY {
        for told in [
            "0",
            past,
            "",
            "soon",
            "-1",
            "1.5",
            "1 s",
            "Sun, 99 Nov 1994",
        ] {
            let server = Scripted::start([&*refusal(status, told), CREATED]).await;
            let sent = client(Policy::default()).post(server.url()).body(body());
            let response = sent.send().await.expect("a response");
            let result = (response.status(), response.tries());
            assert_eq!(result, (StatusCode::CREATED, 2), "{status}: {told}");
            assert_equal_requests(&server, 2);
        }
    }
}

#[tokio::test]
async fn a_wait_past_the_deadline_returns_the_response() {
    let far = "Fri, 31 Dec 9999 23:59:59 GMT";
    let largest = u64::MAX.to_string();
    for status in TEMPORARY {
        for told in ["121", far, &largest, "99999999999999999999999999"] {
            let server = Scripted::start([&*refusal(status, told), CREATED]).await;
            let sent = client(Policy::default()).post(server.url()).body(body());
            let response = sent.send().await.expect("a response");
            assert_eq!(response.status().as_str(), &status[..3], "{told}");
            assert_eq!(response.headers()["retry-after"], told);
            assert_eq!(response.tries(), 1);
        }
    }
}

#[tokio::test]
async fn both_forms_of_retry_after_delay_the_retry() {
    let send = async |told: &str| {
        let server = Scripted::start([&*refusal(TEMPORARY[2], told), CREATED]).await;
        let sent = client(Policy::default()).post(server.url()).body(body());
        let response = sent.send().await.expect("a response");
        assert_eq!(response.tries(), 2);
        assert_equal_requests(&server, 2);
    };
    let before = Instant::now();
    send("1").await;
    assert!(before.elapsed() >= Duration::from_secs(1));
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    send(&date).await;
    assert!(SystemTime::now() >= httpdate::parse_http_date(&date).expect("a date"));
}

#[tokio::test]
async fn responses_that_break_off_anywhere_are_lost() {
    let chunked = "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
    let replies = vec![
        Reply::Reset(String::new()),
        Reply::Reset("HTTP/1.1 201 Cre".to_owned()),
        Reply::Reset("HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\nok".to_owned()),
        Reply::Reset(chunked.to_owned()),
        "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n".into(),
        chunked.into(),
        "SSH-2.0-OpenSSH_9.6\r\n".into(),
        CREATED.into(),
    ];
    let requests = replies.len();
    let server = Scripted::start(replies).await;
    let sent = client(Policy::default()).post(server.url()).body(body());
    let response = sent.send().await.expect("a response");
    assert_eq!(response.tries() as usize, requests);
    assert!(response.remote_addr().is_some());
    assert_eq!(response.text().await.expect("a body"), "ok");
    assert_equal_requests(&server, requests);
}

#[tokio::test]
async fn a_response_that_never_ends_ends_its_try() {
    let drip = || Reply::Drip("HTTP/1.1 201 Created\r\ncontent-length: 999999\r\n\r\n".to_owned());
    let server = Scripted::start([drip(), drip(), CREATED.into()]).await;
    let policy = Policy::default().try_timeout(Duration::from_millis(200));
    let sent = client(policy).post(server.url()).body(body());
    let response = sent.send().await.expect("a response");
    assert_eq!(
        (response.status(), response.tries()),
        (StatusCode::CREATED, 3)
    );
    assert_equal_requests(&server, 3);

    let server = Scripted::start((0..1_000).map(|_| drip())).await;
    let policy = Policy::default()
        .try_timeout(Duration::from_millis(100))
        .deadline(Duration::from_millis(500));
    let sent = client(policy).post(server.url()).body(body()).send().await;
    let error = sent.expect_err("no whole response");
    let failure = Failure::of(&error).expect("a failure of the client");
    assert_eq!(failure.reason(), Reason::TimedOut);
    assert_eq!(server.keys()[0].as_deref(), failure.key());
}

/// 301, 302 and 303 turn a POST into a GET, as browsers do.
#[tokio::test]
async fn a_redirect_at_the_same_origin_repeats_the_request_or_reads_the_result() {
    for (method, status, is_repeated) in [
        (Method::POST, "301 Moved Permanently", false),
        (Method::POST, "302 Found", false),
        (Method::POST, "303 See Other", false),
        (Method::POST, "307 Temporary Redirect", true),
        (Method::POST, "308 Permanent Redirect", true),
        (Method::PUT, "301 Moved Permanently", true),
        (Method::PATCH, "302 Found", true),
        (Method::DELETE, "303 See Other", false),
        (Method::PUT, "308 Permanent Redirect", true),
    ] {
        let redirect = format!("HTTP/1.1 {status}\r\nlocation: /v2\r\ncontent-length: 0\r\n\r\n");
        let server = Scripted::start([&*redirect, CREATED]).await;
        let client = client(Policy::default());
        let sent = client.request(method.clone(), server.url()).body(body());
        let response = sent.send().await.expect("a response");
        assert_eq!(response.status(), StatusCode::CREATED, "{method} {status}");
        if is_repeated {
            assert_eq!(server.lines()[1], format!("{method} /v2"));
            assert_equal_requests(&server, 2);
        } else {
            assert_eq!(server.lines()[1], "GET /v2", "{method} {status}");
            assert_eq!(
                (&server.keys()[1], &server.bodies()[1]),
                (&None, &Vec::new())
            );
        }
        assert!(response.idempotency_key().is_some());
    }
}
