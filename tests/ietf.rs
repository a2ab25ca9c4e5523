//! Checks `draft-ietf-httpapi-idempotency-key-header-07` section by section.

use test_support::http as support;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Dialect, Idempotency, Problem, idempotent};
use http::{Method, StatusCode};
use serde_json::Value;

use support::{Answer, KEY, Runs, Server, request};

const PAGE: &str = "https://example.com/docs/retries";

#[idempotent(scope = global, required)]
async fn pay(State(runs): State<Runs>, body: String) -> (StatusCode, String) {
    let run = runs.count();
    let status = match body.as_str() {
        "too much" => StatusCode::PAYMENT_REQUIRED,
        _ => StatusCode::CREATED,
    };
    (status, format!("run {run}"))
}

#[idempotent(scope = global)]
async fn pay_slowly(State(runs): State<Runs>, _body: String) -> (StatusCode, String) {
    let run = runs.pass().await;
    (StatusCode::CREATED, format!("run {run}"))
}

/// A service with the draft's dialect, and the number of its payments.
struct Service {
    server: Server,
    runs: Runs,
}

impl Service {
    async fn start(dialect: Dialect) -> Self {
        let runs = Runs::default();
        let router = Router::new()
            .route("/payments", post(pay))
            .route("/slow-payments", post(pay_slowly))
            .layer(Idempotency::builder().dialect(dialect).build())
            .with_state(runs.clone());
        let server = Server::start(router).await;
        Self { server, runs }
    }

    async fn strict() -> Self {
        Self::start(Dialect::ietf().documentation(PAGE)).await
    }

    async fn pay(&self, key: &str, body: &str) -> Answer {
        let request = request(Method::POST, "/payments", [(KEY, key)], body);
        self.server.send(request).await
    }

    async fn pay_without_a_key(&self) -> Answer {
        self.server
            .send(request(Method::POST, "/payments", [], ""))
            .await
    }

    /// Sends a request twice at once. Returns the response of the second request, then that of the
    /// first.
    async fn pay_twice_at_once(&self) -> (Answer, Answer) {
        let pay = || self.server.post("/slow-payments", "\"slow\"", "");
        let meanwhile = async {
            self.runs.until_started(1).await;
            let second = pay().await;
            self.runs.open(1);
            second
        };
        let (first, second) = tokio::join!(pay(), meanwhile);
        (second, first)
    }
}

/// Asserts that the problem names `page` both in its type and in its `Link` header.
fn assert_links_to(answer: &Answer, page: &str, code: &str) {
    assert_eq!(answer.code(), code);
    let problem: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["type"], format!("{page}#{code}"));
    assert_eq!(
        answer.headers["link"],
        format!("<{page}>; rel=\"describedby\"")
    );
}

#[tokio::test]
async fn section_2_1_the_value_is_a_string() {
    let service = Service::strict().await;
    let refused = [
        "8e03978e-40d5-43e8-bc93-6894a57f9324",
        "abcdef",
        "42",
        "4.2",
        "?1",
        ":YWJj:",
        "@1659578233",
        "%\"abc\"",
        "(\"a\" \"b\")",
        "\"a\", \"b\"",
        "\"a\" b",
        "\"a",
        "a\"",
        "'a'",
        "\"a\\b\"",
        "\"ü\"",
        "\"\"",
        "",
    ];
    for key in refused {
        let answer = service.pay(key, "").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{key} {answer:?}");
        assert_links_to(&answer, PAGE, "idempotency_key_invalid");
    }
    assert_eq!(service.runs.finished(), 0);

    let taken = [
        "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"",
        "\"a, b\"",
        "\"a\\\"b\"",
        "\"a b\"",
    ];
    for (number, key) in taken.into_iter().enumerate() {
        let answer = service.pay(key, "").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{key} {answer:?}");
        assert_eq!(service.runs.finished(), number + 1);
    }
}

/// RFC 9651, sections 3.1.2 and 3.3: an item may have parameters. The draft defines no parameters.
#[tokio::test]
async fn section_2_1_parameters_are_not_part_of_the_key() {
    let service = Service::strict().await;
    for key in ["\"a\"", "\"a\";v=1", "\"a\"; v"] {
        assert_eq!(service.pay(key, "").await.text(), "run 1", "{key}");
    }
}

#[tokio::test]
async fn section_2_1_only_one_header_line_is_accepted() {
    let service = Service::strict().await;
    for keys in [["\"a\"", "\"a\""], ["\"a\"", "\"b\""], ["\"a", "b\""]] {
        let headers = keys.map(|key| (KEY, key));
        let answer = service
            .server
            .send(request(Method::POST, "/payments", headers, ""))
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{keys:?}");
    }
    assert_eq!(service.runs.finished(), 0);
}

/// Without the strict mode, a bare key equals the same key in quotes.
#[tokio::test]
async fn section_2_1_the_default_dialect_is_lenient() {
    let service = Service::start(Dialect::default()).await;
    for key in ["\"abc\"", "abc"] {
        assert_eq!(service.pay(key, "").await.text(), "run 1", "{key}");
    }
    for key in ["a, b", "\"a\", \"b\"", "\"a", "a b", ""] {
        assert_eq!(
            service.pay(key, "").await.status,
            StatusCode::BAD_REQUEST,
            "{key}"
        );
    }
}

#[tokio::test]
async fn section_2_6_a_first_request_is_processed_normally() {
    let service = Service::strict().await;
    let answer = service.pay("\"first\"", "").await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::CREATED, "run 1")
    );
    assert!(!answer.is_replay());
}

#[tokio::test]
async fn section_2_6_a_retry_gets_the_earlier_success_or_error() {
    let service = Service::strict().await;
    for (body, status) in [
        ("", StatusCode::CREATED),
        ("too much", StatusCode::PAYMENT_REQUIRED),
    ] {
        let key = format!("\"repeat {status}\"");
        let first = service.pay(&key, body).await;
        let repeat = service.pay(&key, body).await;
        assert_eq!((first.status, &first.body), (status, &repeat.body));
        assert_eq!(repeat.status, status);
        assert!(repeat.is_replay());
    }
    assert_eq!(service.runs.finished(), 2);
}

#[tokio::test]
async fn section_2_6_a_concurrent_retry_is_a_conflict() {
    let service = Service::strict().await;
    let (second, first) = service.pay_twice_at_once().await;
    assert_eq!(second.status, StatusCode::CONFLICT);
    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!(service.runs.finished(), 1);
}

#[tokio::test]
async fn section_2_7_a_missing_key_is_400_and_links_documentation() {
    let service = Service::strict().await;
    let answer = service.pay_without_a_key().await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_links_to(&answer, PAGE, "idempotency_key_missing");
    assert_eq!(service.runs.finished(), 0);
}

#[tokio::test]
async fn section_2_7_a_different_payload_is_422_and_links_documentation() {
    let service = Service::strict().await;
    service.pay("\"a\"", "1").await;
    let answer = service.pay("\"a\"", "2").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_links_to(&answer, PAGE, "idempotency_key_reused");
    let repeat = service.pay("\"a\"", "1").await;
    assert!(
        repeat.is_replay(),
        "the mismatch must not change the record: {repeat:?}"
    );
}

#[tokio::test]
async fn section_2_7_a_running_request_is_409_and_links_documentation() {
    let service = Service::strict().await;
    let (second, _) = service.pay_twice_at_once().await;
    assert_eq!(second.status, StatusCode::CONFLICT);
    assert_links_to(&second, PAGE, "idempotency_key_in_flight");
    assert_eq!(second.headers["retry-after"], "1");
}

/// A service without its own documentation page links to the draft.
#[tokio::test]
async fn section_2_7_without_a_documentation_page_the_draft_is_linked() {
    let service = Service::start(Dialect::ietf()).await;
    let answer = service.pay_without_a_key().await;
    let draft =
        "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07";
    assert_links_to(&answer, draft, "idempotency_key_missing");
}

/// A page with a fragment is linked unchanged. The problem types replace the fragment.
#[tokio::test]
async fn section_2_7_a_documentation_page_may_have_a_fragment() {
    let page = format!("{PAGE}#keys");
    let service = Service::start(Dialect::ietf().documentation(page.as_str())).await;
    let answer = service.pay_without_a_key().await;
    let problem: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["type"], format!("{PAGE}#idempotency_key_missing"));
    assert_eq!(
        answer.headers["link"],
        format!("<{page}>; rel=\"describedby\"")
    );
}

/// A service that renders its own problems keeps the link.
#[tokio::test]
async fn section_2_7_a_custom_rendering_keeps_the_link() {
    let idem = Idempotency::builder()
        .dialect(Dialect::ietf().documentation(PAGE))
        .render_problem(|problem: &Problem| (problem.status(), Json(problem.code())))
        .build();
    let router = Router::new().route("/payments", post(pay));
    let server = Server::start(router.layer(idem).with_state(Runs::default())).await;
    let answer = server
        .send(request(Method::POST, "/payments", [], ""))
        .await;
    assert_eq!(answer.text(), "\"idempotency_key_missing\"");
    assert_eq!(
        answer.headers["link"],
        format!("<{PAGE}>; rel=\"describedby\"")
    );
}

/// Section 2.7: a client that repeats its invalid request gets the same error again.
#[tokio::test]
async fn section_2_7_a_repeated_invalid_request_fails_again() {
    let service = Service::strict().await;
    service.pay("\"a\"", "1").await;
    for _ in 0..2 {
        assert_eq!(
            service.pay("\"a\"", "2").await.code(),
            "idempotency_key_reused"
        );
        assert_eq!(
            service.pay_without_a_key().await.code(),
            "idempotency_key_missing"
        );
    }
    assert_eq!(service.runs.finished(), 1);
}
