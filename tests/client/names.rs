//! Tests that the client and the server use the same names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum_idem::Dialect;
use idem_client::{codes, headers};
use test_support::http::{KEY, REPLAYED};

/// The table in the documentation of `Problem`, whose codes the unit tests of the runtime compare with its code.
fn codes_of_the_server() -> BTreeSet<String> {
    let path = "idem-runtime/src/response/problem.rs";
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    let source = source.expect("a readable source file");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// | `idempotency_"));
    let codes: BTreeSet<_> = rows
        .map(|row| {
            let code = row.split('`').next().expect("a code");
            format!("idempotency_{code}")
        })
        .collect();
    // Every code in the source is in the table.
    let literals = source.split("\"idempotency_").skip(1);
    let literals = literals.filter_map(|literal| literal.split('"').next());
    // A format string of a test is not a code.
    for code in literals.filter(|code| !code.contains('{')) {
        let code = format!("idempotency_{code}");
        assert!(codes.contains(&code), "{code} is missing in the table");
    }
    codes
}

#[test]
fn the_client_has_a_constant_for_each_code_of_the_server() {
    let constants: BTreeSet<_> = codes::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(constants.len(), codes::ALL.len());
    assert_eq!(constants, codes_of_the_server());
}

#[test]
fn the_client_uses_the_headers_of_the_default_dialect() {
    assert_eq!(headers::IDEMPOTENCY_KEY, KEY);
    assert_eq!(headers::IDEMPOTENCY_REPLAYED, REPLAYED);
    let dialect = format!("{:?}", Dialect::default());
    for name in [headers::IDEMPOTENCY_KEY, headers::IDEMPOTENCY_REPLAYED] {
        assert!(dialect.contains(&format!("\"{name}\"")), "{dialect}");
    }
}
