//! Tests which header values are keys and which are refused.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Method};
use axum::routing::post;
use axum_idem::{Dialect, Idempotency, IdempotencyKey, KeySyntax, idempotent};

use crate::support::{KEY, Runs, Server, request, status_of};

#[idempotent(scope = global)]
async fn count(State(runs): State<Runs>) -> String {
    runs.count().to_string()
}

#[idempotent(scope = global)]
async fn echo(key: Option<IdempotencyKey>, State(runs): State<Runs>) -> String {
    runs.count();
    key.map_or_else(|| "none".into(), |key| key.to_string())
}

#[idempotent(scope = global, required)]
async fn required(State(runs): State<Runs>) -> String {
    runs.count().to_string()
}

async fn needs_key(key: IdempotencyKey) -> String {
    assert!(!format!("{key:?}").contains(key.as_str()));
    key.as_str().into()
}

async fn start(dialect: Dialect) -> (Server, Runs) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/count", post(count))
        .route("/echo", post(echo))
        .route("/needs-key", post(needs_key))
        .route("/required", post(required))
        .layer(Idempotency::builder().dialect(dialect).build())
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

async fn send(server: Server, lines: &[&[u8]]) -> (u16, String) {
    let mut request = request(Method::POST, "/echo", [], "");
    for line in lines {
        request
            .headers_mut()
            .append(KEY, HeaderValue::from_bytes(line).expect("a header value"));
    }
    let answer = server.send(request).await;
    let text = if answer.status == 400 {
        answer.code()
    } else {
        answer.text().into()
    };
    (answer.status.as_u16(), text)
}

#[tokio::test]
async fn quoted_and_unquoted_forms_are_the_same_key() {
    let (server, runs) = start(Dialect::default()).await;
    for line in [r#""abc""#, "abc", " \t abc \t", r#""abc";p=1"#] {
        assert_eq!(
            send(server, &[line.as_bytes()]).await,
            (200, "abc".into()),
            "{line}"
        );
    }
    assert_eq!(runs.started(), 1);
    let longest = "a".repeat(255);
    for key in [
        longest.as_str(),
        "x",
        "8e03978e-40d5-43e8-bc93-6894a57f9324",
        "a:b/c=d",
    ] {
        assert_eq!(send(server, &[key.as_bytes()]).await.1, key);
    }
    assert_eq!(send(server, &[br#""a\"b\\""#]).await.1, r#"a"b\"#);
    assert_eq!(send(server, &[br#""a,b c""#]).await.1, "a,b c");
}

#[tokio::test]
async fn invalid_and_repeated_keys_are_refused() {
    let (server, runs) = start(Dialect::default()).await;
    let too_long = "a".repeat(256);
    let far_too_long = "a".repeat(70_000);
    let bad: [&[&[u8]]; 19] = [
        &[b""],
        &[b"\"\""],
        &[b"a", b"b"],
        &[b"a", b"a"],
        // Joined by a comma, these two lines would form one valid string.
        &[b"\"foo", b"bar\""],
        &[b"a,b"],
        &[b"\"a\", \"b\""],
        &[b"\"foo"],
        &[b"foo\""],
        &[b"\"foo\"bar"],
        &[b"\"a\\b\""],
        &[b"\"a\\"],
        &[b"a b"],
        &[b"a\tb"],
        &[b"\"\xc3\xbc\""],
        &[b"\xfc"],
        &[too_long.as_bytes()],
        &[far_too_long.as_bytes()],
        &[b"\"a\";=1"],
    ];
    for lines in bad {
        let answer = send(server, lines).await;
        assert_eq!(answer, (400, "idempotency_key_invalid".into()), "{lines:?}");
    }
    assert_eq!(runs.started(), 0);
}

#[tokio::test]
async fn control_characters_in_a_key_do_not_reach_the_handler() {
    let (server, runs) = start(Dialect::default()).await;
    for byte in [0x00, 0x01, 0x7f] {
        let mut request =
            b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\nidempotency-key: a".to_vec();
        request.extend_from_slice(&[byte, b'b']);
        request.extend_from_slice(b"\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(
            status_of(&server.write_and_read(request).await),
            400,
            "{byte:#x}"
        );
    }
    assert_eq!(runs.started(), 0);
}

#[tokio::test]
async fn a_key_in_a_trailer_is_ignored() {
    let (server, _) = start(Dialect::default()).await;
    let request = "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
                   trailer: idempotency-key\r\n\r\n1\r\na\r\n0\r\nidempotency-key: k\r\n\r\n";
    let answer = server.write_and_read(request).await;
    assert!(
        answer.ends_with(b"none"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn a_key_in_a_trailer_does_not_replace_a_required_key() {
    let (server, runs) = start(Dialect::default()).await;
    let request = "POST /required HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
                   trailer: idempotency-key\r\n\r\n1\r\na\r\n0\r\nidempotency-key: k\r\n\r\n";
    let answer = server.write_and_read(request).await;
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(status_of(&answer), 400, "{text}");
    assert!(text.contains("idempotency_key_missing"), "{text}");
    assert_eq!(runs.started(), 0);
}

#[tokio::test]
async fn keys_are_case_sensitive_and_header_names_are_not() {
    let (server, runs) = start(Dialect::default()).await;
    server.post("/count", "ABC", "").await;
    server.post("/count", "abc", "").await;
    assert_eq!(runs.started(), 2);
    let upper = "POST /count HTTP/1.1\r\nhost: a\r\nconnection: close\r\nIDEMPOTENCY-KEY: abc\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(status_of(&server.write_and_read(upper).await), 200);
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn the_strict_syntax_accepts_only_quoted_strings() {
    let (server, runs) = start(Dialect::default().key_syntax(KeySyntax::StructuredString)).await;
    assert_eq!(send(server, &[br#""abc""#]).await.0, 200);
    let bare = "8e03978e-40d5-43e8-bc93-6894a57f9324";
    for bad in [
        bare,
        "abcdef",
        "1",
        "?1",
        ":YQ==:",
        "@1659578233",
        "1.5",
        "tok",
    ] {
        assert_eq!(send(server, &[bad.as_bytes()]).await.0, 400, "{bad}");
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn the_raw_syntax_uses_the_header_value_unchanged() {
    let (server, runs) = start(Dialect::default().key_syntax(KeySyntax::Raw)).await;
    for key in ["abc", r#""abc""#, "a,b", r#"""#, "\u{fc}"] {
        assert_eq!(send(server, &[key.as_bytes()]).await, (200, key.into()));
    }
    assert_eq!(runs.started(), 5);
    assert_eq!(send(server, &[b"\xff"]).await.0, 400);
}

#[tokio::test]
async fn key_lengths_are_counted_in_bytes_after_unquoting() {
    let (server, _) = start(Dialect::default().min_key_len(3).max_key_len(4)).await;
    for good in [r#""a\"b\\""#, "abc", "abcd", r#""abc""#] {
        assert_eq!(send(server, &[good.as_bytes()]).await.0, 200, "{good}");
    }
    for bad in [r#""abcde""#, "abcde", "ab", r#""ab""#] {
        assert_eq!(send(server, &[bad.as_bytes()]).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_key_may_be_limited_to_one_byte() {
    let (server, runs) = start(Dialect::default().max_key_len(1)).await;
    for good in ["x", r#""x""#] {
        assert_eq!(send(server, &[good.as_bytes()]).await, (200, "x".into()));
    }
    for bad in ["xx", r#""xx""#, r#""""#, ""] {
        assert_eq!(send(server, &[bad.as_bytes()]).await.0, 400, "{bad}");
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_service_can_add_its_own_key_rule() {
    let (server, _) =
        start(Dialect::default().key_rule(|key| !["123", "test"].contains(&key))).await;
    assert_eq!(send(server, &[b"\"test\""]).await.0, 400);
    assert_eq!(send(server, &[b"tests"]).await.0, 200);
}

#[tokio::test]
async fn a_configured_key_header_replaces_the_default() {
    let (server, runs) = start(Dialect::default().key_header("X-Request-Id")).await;
    for _ in 0..2 {
        server
            .send(request(Method::POST, "/count", [("x-request-id", "k")], ""))
            .await;
    }
    assert_eq!(runs.started(), 1);
    for _ in 0..2 {
        assert!(!server.post("/count", "k9", "").await.is_replay());
    }
    assert_eq!(runs.started(), 3);
}

#[tokio::test]
async fn a_handler_can_extract_the_key() {
    let (server, _) = start(Dialect::default()).await;
    assert_eq!(send(server, &[]).await, (200, "none".into()));
    assert_eq!(server.post("/needs-key", "\"abc\"", "").await.text(), "abc");
    let refused = server
        .send(request(Method::POST, "/needs-key", [], ""))
        .await;
    assert_eq!(refused.code(), "idempotency_key_missing");
    assert_eq!(
        server.post("/needs-key", "\"abc", "").await.code(),
        "idempotency_key_invalid"
    );
}

/// The key is extracted before the runtime is known, so a layer must provide the dialect.
#[tokio::test]
async fn an_endpoint_with_its_own_runtime_extracts_a_key_below_a_layer() {
    #[idempotent(scope = global, runtime = idem)]
    async fn echo(key: IdempotencyKey, State(idem): State<Idempotency>) -> String {
        key.to_string()
    }
    let dialect = Dialect::default().key_header("x-request-id");
    let idem = Idempotency::builder().dialect(dialect).build();
    let router = Router::new()
        .route("/echo", post(echo))
        .layer(idem.clone())
        .with_state(idem);
    let server = Server::start(router).await;
    for is_replay in [false, true] {
        let keyed = request(Method::POST, "/echo", [("x-request-id", "k")], "");
        let response = server.send(keyed).await;
        assert_eq!((response.text(), response.is_replay()), ("k", is_replay));
    }
}
