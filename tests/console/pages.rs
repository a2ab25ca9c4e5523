//! The page, its files, and who may see them.

use std::fs;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::service::Service;

const PATHS: [&str; 5] = [
    "/ops/idem",
    "/ops/idem/console.css",
    "/ops/idem/console.js",
    "/ops/idem/api/overview",
    "/ops/idem/api/records",
];

#[tokio::test]
async fn the_page_finds_its_files_with_and_without_a_trailing_slash() {
    let service = Service::new();
    for path in PATHS {
        let reply = service.get("reader", path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {reply:?}");
    }
    for (path, base) in [
        ("/ops/idem", "./idem/"),
        ("/slash/idem", "./idem/"),
        ("/slash/idem/", ""),
    ] {
        let page = service.get("reader", path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {page:?}");
        let script = format!("src=\"{base}console.js\"");
        assert!(page.text.contains(&script), "{path}: {page:?}");
        assert!(!page.text.contains('{'), "{path}: {page:?}");
    }
    let missing = service.get("reader", "/ops/idem/api/no").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_denied_request_gets_nothing_and_each_response_has_the_policy() {
    let service = Service::new();
    service.prepare().await;
    for operator in ["reader", "nobody"] {
        for path in PATHS.into_iter().chain(["/slash/idem/"]) {
            let reply = service.get(operator, path).await;
            let policy = reply.headers["content-security-policy"].to_str();
            let policy = policy.expect("text");
            for rule in [
                "default-src 'none'",
                "script-src 'self'",
                "frame-ancestors 'none'",
            ] {
                assert!(policy.contains(rule), "{path}: {policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(reply.headers["cache-control"], "no-store");
            if operator == "nobody" {
                assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path}");
                assert!(!reply.text.contains("desk"), "{path}: {reply:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_page_of_another_site_reads_nothing() {
    let service = Service::new();
    for (site, status) in [
        ("cross-site", StatusCode::FORBIDDEN),
        ("same-site", StatusCode::FORBIDDEN),
        ("same-origin", StatusCode::OK),
        // An address that a person has typed.
        ("none", StatusCode::OK),
    ] {
        for path in ["/ops/idem/api/overview", "/ops/idem/api/records"] {
            let request = Request::get(path)
                .header("x-operator", "admin")
                .header("sec-fetch-site", site)
                .body(Body::empty());
            let reply = service.send(request.expect("a request")).await;
            assert_eq!(reply.status, status, "{site} {path}: {reply:?}");
        }
    }
}

/// A site that points its own name at the address of the console is the console's own origin to the browser.
#[tokio::test]
async fn another_host_name_gets_nothing() {
    let service = Service::with(|console| console.hosts(["ops.internal", "[::1]"]));
    for (host, status) in [
        (Some("ops.internal"), StatusCode::OK),
        (Some("OPS.internal:8443"), StatusCode::OK),
        (Some("[::1]:3000"), StatusCode::OK),
        (Some("evil.example"), StatusCode::MISDIRECTED_REQUEST),
        (
            Some("ops.internal.evil.example"),
            StatusCode::MISDIRECTED_REQUEST,
        ),
        (Some("not a host"), StatusCode::MISDIRECTED_REQUEST),
        (None, StatusCode::MISDIRECTED_REQUEST),
    ] {
        for path in PATHS {
            let mut request = Request::get(path)
                .header("x-operator", "admin")
                .header("sec-fetch-site", "same-origin");
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let reply = service.send(request.body(Body::empty()).expect("a request"));
            assert_eq!(reply.await.status, status, "{host:?} {path}");
        }
    }
    // HTTP/2 has the host in the URI.
    for (host, status) in [
        ("ops.internal", StatusCode::OK),
        ("evil.example", StatusCode::MISDIRECTED_REQUEST),
    ] {
        let request = Request::get(format!("https://{host}/ops/idem"))
            .header("host", "ops.internal")
            .header("x-operator", "admin");
        let reply = service.send(request.body(Body::empty()).expect("a request"));
        assert_eq!(reply.await.status, status, "{host}");
    }
}

/// A strict policy forbids inline code, and the console loads nothing from other hosts.
#[test]
fn the_files_have_no_inline_code_and_no_other_host() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("idem-runtime/src/console/assets");
    let read = |name| fs::read_to_string(root.join(name)).expect("a readable file");
    let (page, style, script) = (
        read("console.html"),
        read("console.css"),
        read("console.js"),
    );
    for forbidden in [
        "<script>", "<style", " style=", " onclick", " onload", " onerror", "href=\"/", "src=\"/",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ] {
        assert!(!script.contains(forbidden), "{forbidden}");
    }
    for file in [&page, &style, &script] {
        assert!(!file.contains("//cdn") && !file.contains("http:") && !file.contains("https:"));
    }
    // Each input has a label, and each dialog a title.
    assert_eq!(
        page.matches("<dialog ").count(),
        page.matches("<dialog id=").count()
    );
    assert!(page.matches("aria-labelledby=").count() >= 6);
}
