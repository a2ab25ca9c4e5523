//! Tests that the client and the server use the same names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum_idem::Dialect;
use http::header;
use idem_client::{codes, headers};
use test_support::http::{KEY, REPLAYED};

/// The codes in the table in the documentation of `Problem`, and all codes in the source.
fn codes_of_the_server() -> [BTreeSet<String>; 2] {
    let folder = "idem-runtime/src/response/problem";
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let source: String = files
        .expect("a readable folder")
        .map(|file| fs::read_to_string(file.expect("an entry").path()))
        .collect::<Result<_, _>>()
        .expect("readable source files");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// | `idempotency_"));
    let rows = rows.filter_map(|row| row.split('`').next());
    let literals = source.split("\"idempotency_").skip(1);
    let literals = literals.filter_map(|literal| literal.split('"').next());
    // A format string of a test is not a code.
    let literals = literals.filter(|code| !code.contains('{'));
    let name = |code: &str| format!("idempotency_{code}");
    [rows.map(name).collect(), literals.map(name).collect()]
}

#[test]
fn the_client_has_a_constant_for_each_code_of_the_server() {
    let set = |codes: &[&str]| -> BTreeSet<_> { codes.iter().map(ToString::to_string).collect() };
    let [documented, all] = codes_of_the_server();
    let constants = set(codes::ALL);
    assert_eq!(constants.len(), codes::ALL.len());
    assert_eq!(constants, documented);
    let of_dialects = set(&[
        codes::acp::CONFLICT,
        codes::acp::IN_FLIGHT,
        codes::acp::KEY_REQUIRED,
    ]);
    assert_eq!(all, &constants | &of_dialects);
}

#[test]
fn the_client_uses_the_headers_of_the_default_dialect() {
    assert_eq!(headers::IDEMPOTENCY_KEY, KEY);
    assert_eq!(headers::IDEMPOTENCY_REPLAYED, REPLAYED);
    let dialect = Dialect::default();
    assert_eq!(dialect.request_headers(), [headers::IDEMPOTENCY_KEY]);
    let of_responses = [
        headers::IDEMPOTENCY_REPLAYED,
        header::RETRY_AFTER,
        headers::IDEMPOTENCY_DEGRADED,
        headers::IDEMPOTENCY_RECEIPT,
    ];
    assert_eq!(dialect.response_headers(), of_responses);
}
