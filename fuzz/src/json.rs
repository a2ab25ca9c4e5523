//! The canonical form of a JSON body tells a retry from another request.

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

/// What has a form is one JSON value, and white space around it does not change the form.
pub fn json(input: &[u8]) {
    let form = value(input);
    assert_eq!(values_at(input, &[""]), form);
    assert_eq!(value(&[b" \t", input, b"\r\n"].concat()), form);
    if let Some(form) = form {
        assert!(is_json(input));
        let [once, twice] = [b"[".as_slice(), b"["].map(|open| [open, input, b"]"].concat());
        assert_eq!(value(&once), value(&twice));
        // It may nest too deeply now, but is never taken for what it was.
        assert_ne!(value(&once), Some(form));
    }
    for pointers in [&["/a"][..], &["/0", "/a/b"], &["/~0~1", "/"]] {
        // Whatever the value, it is found or said to be absent.
        assert_eq!(values_at(input, pointers).is_some(), value(input).is_some());
    }
}

/// As `serde_json` sees it, which does not look for doubled members.
fn is_json(input: &[u8]) -> bool {
    let depth = input.iter().filter(|byte| b"[{".contains(byte)).count();
    // Its limit is one lower than ours.
    depth > 120 || serde_json::from_slice::<IgnoredAny>(input).is_ok()
}
