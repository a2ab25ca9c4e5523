//! The API and the page of another origin. `tests/services/browser` runs the page in Chromium.

use axum_idem::{Dialect, Idempotency};
use http::{HeaderMap, Method, StatusCode};

use crate::examples::browser;
use crate::support::{Answer, KEY, Server, request};

const PAGE: &str = "http://127.0.0.1:3010";
const TEA: &str = r#"{"tea": "Assam", "grams": 100}"#;

async fn start(dialect: Dialect) -> Server {
    let idem = Idempotency::builder().dialect(dialect.clone()).build();
    let page = PAGE.parse().expect("an origin");
    Server::start(browser::api(&idem, &dialect, page)).await
}

/// Asks as a browser does before the request of a page.
async fn preflight(server: Server, origin: &str, headers: &str) -> Answer {
    let asks = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", headers),
    ];
    server
        .send(request(Method::OPTIONS, "/orders", asks, ""))
        .await
}

async fn order(server: Server, token: &str, key: &str) -> Answer {
    let headers = [
        ("origin", PAGE),
        ("authorization", token),
        (KEY, key),
        ("content-type", "application/json"),
    ];
    server
        .send(request(Method::POST, "/orders", headers, TEA))
        .await
}

/// The names in a header of CORS.
fn listed(headers: &HeaderMap, name: &str) -> Vec<String> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    let names = value.unwrap_or_default().split(',');
    names.map(|name| name.trim().to_lowercase()).collect()
}

fn is_allowed(answer: &Answer) -> bool {
    let origin = answer.headers.get("access-control-allow-origin");
    answer.status.is_success() && origin.is_some_and(|origin| origin == PAGE)
}

/// A browser compares the names of its question with the response, and sends the request only if all are allowed.
#[tokio::test]
async fn the_page_may_send_its_key_and_other_pages_may_not() {
    for (dialect, key_header) in [
        (Dialect::default(), "idempotency-key"),
        (Dialect::stripe(), "idempotency-key"),
        (Dialect::acp(), "idempotency-key"),
        (Dialect::ietf().key_header("X-Order"), "x-order"),
    ] {
        let server = start(dialect).await;
        let asked = ["authorization", "content-type", key_header];
        let answer = preflight(server, PAGE, &asked.join(",")).await;
        assert!(is_allowed(&answer), "{answer:?}");
        let allowed = listed(&answer.headers, "access-control-allow-headers");
        for name in asked {
            assert!(allowed.iter().any(|it| it == name), "{name}: {allowed:?}");
        }
        let methods = listed(&answer.headers, "access-control-allow-methods");
        assert!(methods.iter().any(|it| it == "post"), "{methods:?}");
        for other in ["http://127.0.0.1:3011", "https://127.0.0.1:3010", "null"] {
            let answer = preflight(server, other, &asked.join(",")).await;
            assert!(!is_allowed(&answer), "{other}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_page_can_read_whether_a_response_is_a_replay() {
    for (dialect, replay_header) in [
        (Dialect::default(), "idempotency-replayed"),
        (Dialect::stripe(), "idempotent-replayed"),
        (Dialect::acp(), "idempotent-replayed"),
    ] {
        let server = start(dialect).await;
        for is_replay in [false, true] {
            let answer = order(server, "Bearer alice", "k").await;
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            assert!(is_allowed(&answer), "{answer:?}");
            let exposed = listed(&answer.headers, "access-control-expose-headers");
            assert!(exposed.iter().any(|it| it == replay_header), "{exposed:?}");
            assert_eq!(answer.headers.contains_key(replay_header), is_replay);
        }
    }
}

/// The page shows the reason of a refusal, and waits as long as `Retry-After` says.
#[tokio::test]
async fn the_page_can_read_refusals() {
    let server = start(Dialect::default()).await;
    order(server, "Bearer alice", "k").await;
    let headers = [
        ("origin", PAGE),
        ("authorization", "Bearer alice"),
        (KEY, "k"),
    ];
    let reused = server.send(request(Method::POST, "/orders", headers, "{}"));
    let refusals = [
        (reused.await, StatusCode::CONFLICT),
        (order(server, "", "k").await, StatusCode::UNAUTHORIZED),
        (
            order(server, "Bearer alice", "").await,
            StatusCode::BAD_REQUEST,
        ),
    ];
    for (answer, status) in refusals {
        assert_eq!(answer.status, status, "{answer:?}");
        let origin = &answer.headers["access-control-allow-origin"];
        assert_eq!(origin, PAGE, "{answer:?}");
        let exposed = listed(&answer.headers, "access-control-expose-headers");
        assert!(exposed.iter().any(|it| it == "retry-after"), "{exposed:?}");
    }
}

#[tokio::test]
async fn the_page_connects_to_the_api_only() {
    let page = browser::page("https://api.example").expect("a page");
    let page = Server::start(page).await;
    let get = |path| page.send(request(Method::GET, path, [], ""));
    let html = get("/").await;
    let policy = html.headers["content-security-policy"].to_str();
    let policy = policy.expect("ASCII");
    assert!(
        policy.contains("connect-src https://api.example;"),
        "{policy}"
    );
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(html.text().contains("data-api=\"https://api.example\""));
    for (path, kind) in [("/page.js", "text/javascript"), ("/page.css", "text/css")] {
        let file = get(path).await;
        assert_eq!(file.headers["content-type"], kind);
        assert!(html.text().contains(&path[1..]), "{path}");
    }
}

/// The script repeats the names that the server and the client of `idem-client` use.
#[test]
fn the_page_uses_the_names_of_the_server() {
    use idem_client::codes;

    let script = include_str!("../../examples/browser/page.js").to_lowercase();
    let dialect = Dialect::default();
    for name in dialect.request_headers() {
        assert!(script.contains(&format!("\"{name}\"")), "{name}");
    }
    for name in ["idempotency-replayed", "retry-after"] {
        assert!(script.contains(&format!("get(\"{name}\")")), "{name}");
        let mut exposed = dialect.response_headers().into_iter();
        assert!(exposed.any(|it| it == name), "{name}");
    }
    let retried = [
        codes::KEY_IN_FLIGHT,
        codes::OVERTAKEN,
        codes::BODY_INCOMPLETE,
    ];
    // The order may be booked, so these must not look like a refusal.
    let open = [codes::RESPONSE_NOT_KEPT, codes::OUTCOME_UNKNOWN];
    let list = |name: &str| {
        let (_, after) = script.split_once(name).expect("a list of the script");
        after.split_once("];").expect("the end of the list").0
    };
    let (retried_codes, open_codes) = (list("const retried_codes"), list("const open_codes"));
    for code in codes::ALL {
        let quoted = format!("\"{code}\"");
        let is_retried = retried.contains(code);
        assert_eq!(retried_codes.contains(&quoted), is_retried, "{code}");
        assert_eq!(open_codes.contains(&quoted), open.contains(code), "{code}");
    }
}
