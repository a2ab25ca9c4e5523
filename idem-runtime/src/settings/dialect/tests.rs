//! The profiles of a dialect, and its headers.

use super::*;

#[test]
#[should_panic(expected = "is not a valid URL")]
fn a_documentation_url_cannot_inject_a_header_value() {
    let _ = Dialect::default().documentation("https://example.com/>; rel=\"next\", <x");
}

#[test]
fn each_profile_has_its_documented_settings() {
    let ietf = Dialect::ietf();
    assert_eq!(ietf.syntax(), KeySyntax::StructuredString);
    assert_eq!(ietf.mismatch_status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = ietf.documentation_url().expect("the draft");
    assert!(page.contains("draft-ietf-httpapi-idempotency-key-header-07"));

    let stripe = Dialect::stripe();
    assert_eq!(stripe.syntax(), KeySyntax::Raw);
    assert_eq!(
        stripe.replay_header_name().map(HeaderName::as_str),
        Some("idempotent-replayed")
    );
    assert_eq!(stripe.documentation_url(), None);

    let acp = Dialect::acp();
    assert_eq!((acp.min_key_bytes(), acp.max_key_bytes()), (1, 255));
    assert_eq!(acp.mismatch_status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(acp.echoes_key() && !acp.counts_content_type());

    let ucp = Dialect::ucp();
    assert_eq!((ucp.min_key_bytes(), ucp.max_key_bytes()), (22, 255));
    assert_eq!(ucp.mismatch_status(), StatusCode::CONFLICT);
    assert!(!ucp.echoes_key() && !ucp.counts_content_type());
}

#[test]
fn the_headers_for_cors_follow_the_dialect() {
    let names = |headers: Vec<HeaderName>| headers.iter().map(ToString::to_string).collect();
    let both = |dialect: &Dialect| -> [Vec<String>; 2] {
        [
            names(dialect.request_headers()),
            names(dialect.response_headers()),
        ]
    };
    let [request, response] = both(&Dialect::default());
    assert_eq!(request, ["idempotency-key"]);
    assert_eq!(
        response,
        [
            "idempotency-replayed",
            "retry-after",
            "idempotency-degraded",
            "idempotency-receipt"
        ]
    );
    let dialect = Dialect::ietf()
        .key_header("x-key")
        .no_replay_header()
        .echo_key();
    let [request, response] = both(&dialect);
    assert_eq!(request, ["x-key"]);
    assert_eq!(
        response,
        [
            "retry-after",
            "idempotency-degraded",
            "idempotency-receipt",
            "link",
            "x-key"
        ]
    );
}

#[test]
fn a_service_can_choose_the_key_header() {
    let dialect = Dialect::default();
    assert_eq!(dialect.key_header_name(), "idempotency-key");
    assert!(dialect.has_default_key_header());
    let dialect = dialect.key_header("X-Request-Id");
    assert_eq!(dialect.key_header_name(), "x-request-id");
    assert!(!dialect.has_default_key_header());
    assert_eq!(dialect.no_replay_header().replay_header_name(), None);
}
