//! Checks that every message has an entry in `src/compile_errors.md`.

use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Asserts that a heading of the page contains the words of `message`.
///
/// A heading may list several messages, separated by ` · `. `…` replaces the user's own text.
pub(super) fn assert_entry(message: &str) {
    let page =
        fs::read_to_string(repository().join("src/compile_errors.md")).expect("a readable page");
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let mut entries = headings.flat_map(|line| line.trim_start_matches(['#', ' ']).split(" · "));
    assert!(
        entries.any(|entry| has_words(message, entry)),
        "src/compile_errors.md has no entry for: {message}"
    );
}

fn has_words(message: &str, entry: &str) -> bool {
    let mut rest = message;
    entry.split('…').all(|words| match rest.split_once(words) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[test]
fn every_golden_error_has_an_entry() {
    let goldens = fs::read_dir(repository().join("tests/ui/fail")).expect("a folder of goldens");
    let mut explained = 0;
    for golden in goldens {
        let path = golden.expect("a file").path();
        let name = path.file_name().expect("a file name").to_string_lossy();
        // Mistakes in the body of a handler are not misuse of the attribute. A closure cannot have attributes.
        let is_golden = name.ends_with(".stderr");
        if !is_golden || name.starts_with("body_") || name == "on_a_closure.stderr" {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a readable golden");
        for line in text.lines() {
            let own = line.strip_prefix("error: ");
            let message = own.or_else(|| line.strip_prefix("error[E0277]: "));
            if let Some(message) = message {
                assert_entry(message);
                explained += 1;
            }
        }
    }
    assert!(explained > 50, "only {explained} messages");
}

#[test]
fn a_message_without_an_entry_is_detected() {
    assert!(has_words(
        "`ttl` is given twice; keep one",
        "`…` is given twice"
    ));
    assert!(!has_words("`ttl` is given once", "`…` is given twice"));
}
