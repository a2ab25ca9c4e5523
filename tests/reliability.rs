//! `docs/reliability.md` names tests that exist.

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/reliability.md")).expect("the document");
    let named: Vec<_> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once(".rs::"))
        .collect();
    assert!(named.len() > 60, "{} tests are named", named.len());
    let is_missing = |(file, function): &&(&str, &str)| {
        let source = fs::read_to_string(root.join(file).with_extension("rs"));
        !source.is_ok_and(|source| source.contains(&format!("fn {function}(")))
    };
    let missing: Vec<_> = named.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "there is no {missing:?}");
}
