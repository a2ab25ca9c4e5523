//! Tests the OpenAPI document of a service: what annotated operations document, and that others document nothing.
//!
//! The whole documents are in this folder. `IDEM_OVERWRITE=1` writes them anew, and `tests/openapi/validate` checks them
//! with a validator of the OpenAPI project.

mod aide_service;
mod facts;
mod service;

use std::path::Path;

use axum_idem::store::MemoryStore;
use axum_idem::{Dialect, Idempotency, OnStoreError};
use http::StatusCode;
use serde_json::Value;

/// Compares the document with its file.
fn check(name: &str, document: &Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let path = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(document).expect("JSON") + "\n";
    if std::env::var_os("IDEM_OVERWRITE").is_some() {
        std::fs::write(&path, &text).expect("the file is writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{name}.json differs:\n{text}");
}

fn documented(idem: &Idempotency) -> Value {
    let (_, mut api) = service::router().split_for_parts();
    idem.document(&mut api);
    serde_json::to_value(&api).expect("JSON")
}

#[test]
fn the_document_has_the_default_dialect() {
    check("default", &documented(&Idempotency::in_memory()));
}

#[test]
fn the_document_has_the_dialect_of_the_ietf_draft() {
    let idem = Idempotency::builder()
        .dialect(Dialect::ietf())
        .max_running(100);
    check("ietf", &documented(&idem.build()));
}

#[test]
fn the_document_has_the_dialect_of_the_service() {
    let dialect = Dialect::stripe()
        .key_header("X-Request-Key")
        .min_key_len(16)
        .max_key_len(64)
        .missing(StatusCode::PRECONDITION_REQUIRED)
        .mismatch(StatusCode::UNPROCESSABLE_ENTITY)
        .in_flight(StatusCode::LOCKED);
    let idem = Idempotency::builder()
        .store(MemoryStore::default())
        .dialect(dialect)
        .on_store_error(OnStoreError::FailOpen)
        .render_problem(|problem| {
            let text = problem.title();
            axum::response::IntoResponse::into_response((problem.status(), text))
        });
    check("own", &documented(&idem.build()));
}

#[test]
fn the_document_has_the_flat_errors_of_the_agentic_commerce_protocol() {
    let idem = Idempotency::builder().dialect(Dialect::acp()).build();
    check("acp", &documented(&idem));
}

#[test]
fn operations_without_the_attribute_are_not_changed() {
    let (_, plain) = service::router().split_for_parts();
    let plain = serde_json::to_value(&plain).expect("JSON");
    let documented = documented(&Idempotency::in_memory());
    for path in ["/plain", "/other-order"] {
        assert!(plain["paths"][path].is_object());
        assert_eq!(documented["paths"][path], plain["paths"][path], "{path}");
    }
    assert!(!documented.to_string().contains("x-axum-idem"));
}

/// Without `utoipa-axum`, the document comes from a derive.
#[test]
fn a_derived_document_is_completed_too() {
    use utoipa::OpenApi as _;

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(service::place_order, service::plain))]
    struct Api;

    let mut api = Api::openapi();
    let idem = Idempotency::in_memory();
    idem.document(&mut api);
    let once = serde_json::to_value(&api).expect("JSON");
    let with_routes = documented(&idem);
    for part in ["parameters", "responses"] {
        let of_order = |api: &Value| api["paths"]["/orders"]["post"][part].clone();
        assert_eq!(of_order(&once), of_order(&with_routes), "{part}");
    }
    idem.document(&mut api);
    assert_eq!(
        serde_json::to_value(&api).expect("JSON"),
        once,
        "once is enough"
    );
}

#[test]
fn a_document_without_annotated_operations_is_not_changed() {
    let mut api = utoipa::openapi::OpenApi::default();
    Idempotency::in_memory().document(&mut api);
    assert!(api == utoipa::openapi::OpenApi::default());
}

/// Such a document is wrong, but it must not end the process.
#[test]
fn components_that_refer_to_each_other_are_left_as_they_are() {
    let reference = |name: &str| {
        let reference = format!("#/components/responses/{name}");
        serde_json::json!({ "$ref": reference })
    };
    let idem = Idempotency::in_memory();

    let (_, mut api) = service::router().split_for_parts();
    let of_utoipa = |name| serde_json::from_value(reference(name)).expect("a reference");
    let components = api.components.get_or_insert_default();
    components.responses.insert("a".into(), of_utoipa("b"));
    components.responses.insert("b".into(), of_utoipa("a"));
    let orders = api.paths.paths.get_mut("/orders").expect("a path");
    let order = orders.post.as_mut().expect("an operation");
    let responses = &mut order.responses.responses;
    responses.insert("409".into(), of_utoipa("a"));
    idem.document(&mut api);
    let document = serde_json::to_value(&api).expect("JSON");
    let conflict = &document["paths"]["/orders"]["post"]["responses"]["409"];
    assert_eq!(*conflict, reference("a"));

    let (_, mut api) = aide_service::service();
    let of_aide = |name| serde_json::from_value(reference(name)).expect("a reference");
    let components = api.components.get_or_insert_default();
    components.responses.insert("a".into(), of_aide("b"));
    components.responses.insert("b".into(), of_aide("a"));
    let orders = api
        .paths
        .as_mut()
        .and_then(|it| it.paths.get_mut("/orders"));
    let Some(aide::openapi::ReferenceOr::Item(orders)) = orders else {
        panic!("a path");
    };
    let order = orders.post.as_mut().expect("an operation");
    let responses = &mut order.responses.get_or_insert_default().responses;
    let conflict = aide::openapi::StatusCode::Code(409);
    responses.insert(conflict, of_aide("a"));
    idem.document(&mut api);
    let document = serde_json::to_value(&api).expect("JSON");
    let conflict = &document["paths"]["/orders"]["post"]["responses"]["409"];
    assert_eq!(*conflict, reference("a"));
}

/// Without the call, an operation has the key header of the default dialect.
#[test]
fn the_key_header_is_documented_by_the_attribute_alone() {
    let (_, api) = service::router().split_for_parts();
    let api = serde_json::to_value(&api).expect("JSON");
    let parameters = &api["paths"]["/orders"]["post"]["parameters"];
    assert_eq!(parameters[0]["name"], "Idempotency-Key");
    assert_eq!(parameters[0]["required"], true);
}

#[test]
fn the_document_of_aide_has_the_declared_responses_and_the_refusals() {
    let dialect = Dialect::ietf().echo_key();
    let idem = Idempotency::builder().dialect(dialect).build();
    let (_, mut api) = aide_service::service();
    let plain = serde_json::to_value(&api).expect("JSON");
    idem.document(&mut api);
    let document = serde_json::to_value(&api).expect("JSON");
    check("aide", &document);
    assert_eq!(document["paths"]["/plain"], plain["paths"]["/plain"]);
    idem.document(&mut api);
    assert_eq!(
        serde_json::to_value(&api).expect("JSON"),
        document,
        "once is enough"
    );
}
