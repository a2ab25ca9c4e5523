//! Fuzzes the canonical form of a JSON body, which distinguishes a retry from a different request.

use serde::de::IgnoredAny;

use crate::canonical_json::Document;

fn value(input: &[u8]) -> Option<Vec<u8>> {
    let mut form = Vec::new();
    Document::parse(input)?.write(&mut |bytes: &[u8]| form.extend_from_slice(bytes));
    Some(form)
}

fn values_at(input: &[u8], pointers: &[&str]) -> Option<Vec<u8>> {
    let mut form = Vec::new();
    Document::parse(input)?.write_at(pointers, &mut |bytes: &[u8]| form.extend_from_slice(bytes));
    Some(form)
}

/// An input that has a canonical form is one JSON value. Whitespace around it does not change the form.
pub fn json(input: &[u8]) {
    let form = value(input);
    assert_eq!(values_at(input, &[""]), form);
    assert_eq!(value(&[b" \t", input, b"\r\n"].concat()), form);
    if let Some(form) = form {
        assert!(is_json(input));
        let [once, twice] = [b"[".as_slice(), b"["].map(|open| [open, input, b"]"].concat());
        assert_eq!(value(&once), value(&twice));
        // The nested input may be too deep, but it must not have the form of the original.
        assert_ne!(value(&once), Some(form));
    }
    for pointers in [&["/a"][..], &["/0", "/a/b"], &["/~0~1", "/"]] {
        // A pointer either finds a value or reports an error. It never panics.
        assert_eq!(values_at(input, pointers).is_some(), value(input).is_some());
    }
}

/// Returns whether `serde_json` accepts the input. `serde_json` does not reject duplicate members.
fn is_json(input: &[u8]) -> bool {
    let depth = input.iter().filter(|byte| b"[{".contains(byte)).count();
    // The limit of `serde_json` is one level lower than ours.
    depth > 120 || serde_json::from_slice::<IgnoredAny>(input).is_ok()
}
