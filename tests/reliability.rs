//! Checks that the tests named in `docs/reliability.md` and `docs/security.md` exist and run.

use std::fs;
use std::path::Path;

#[test]
fn every_named_test_exists_and_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path| fs::read_to_string(root.join(path)).expect("a readable document");
    let text = [read("docs/reliability.md"), read("docs/security.md")].concat();
    let named: Vec<_> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once(".rs::"))
        .collect();
    assert!(named.len() > 60, "only {} tests are named", named.len());
    let is_missing = |(file, function): &&(&str, &str)| {
        let source = fs::read_to_string(root.join(file).with_extension("rs"));
        !source.is_ok_and(|source| is_test(&source, function))
    };
    let missing: Vec<_> = named.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "these tests do not exist: {missing:?}");
}

/// Returns whether the function has a test attribute and is not ignored.
fn is_test(source: &str, function: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {function}(")) else {
        return false;
    };
    let attributes: Vec<_> = before
        .lines()
        .rev()
        // Skips the beginning of the function's own line, such as `async`.
        .skip(usize::from(!before.ends_with('\n')))
        .take_while(|line| !line.is_empty() && !line.ends_with(['{', '}', ';']))
        .map(str::trim)
        .collect();
    let has = |start: &str| attributes.iter().any(|line| line.starts_with(start));
    (has("#[test]") || has("#[tokio::test")) && !has("#[ignore")
}

#[test]
fn only_functions_with_a_test_attribute_count() {
    let source = "\
/// A test.
#[tokio::test(start_paused = true)]
async fn awaited() {}

#[test]
#[should_panic(expected = \"this\")]
fn plain() {}

#[ignore]
#[test]
fn ignored() {}

fn helper() {
    #[test]
    fn inner() {}
}
fn next() {}
";
    let tests = ["awaited", "plain", "inner"];
    assert!(tests.iter().all(|test| is_test(source, test)));
    let others = ["ignored", "helper", "next", "missing"];
    assert!(!others.iter().any(|other| is_test(source, other)));
}
