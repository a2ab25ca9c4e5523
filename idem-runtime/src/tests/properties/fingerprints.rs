//! Checks that no two different requests have the same fingerprint.

use std::collections::HashMap;

use http::{Request, header};

use crate::request::fingerprint::{Fingerprint, FingerprintDigest};
use crate::settings::policy::FingerprintMode;

const METHODS: [&str; 2] = ["POST", "POSTa"];
const PATHS: [&str; 5] = ["/", "/a", "/aa", "/a/", "/%3F"];
const OPTIONAL: [Option<&str>; 5] = [None, Some(""), Some("a"), Some("aa"), Some("a/a")];
/// The last body contains the bytes of the canonical form of the number 1.
const BODIES: [&str; 7] = [
    "",
    "a",
    "aa",
    "1",
    "[1]",
    "\"a\"",
    "\u{2}\u{1}\0\0\0\0\0\0\u{31}",
];

/// Checks all combinations, as bytes and as JSON. The canonical form of a value never equals the
/// bytes of another body.
#[test]
fn different_requests_have_different_fingerprints() {
    let mut seen = HashMap::new();
    let modes = [FingerprintMode::Body, FingerprintMode::JSON];
    let mut count = 0;
    for (method, path) in METHODS
        .iter()
        .flat_map(|method| PATHS.map(|path| (method, path)))
    {
        for (query, content_type) in OPTIONAL
            .iter()
            .flat_map(|query| OPTIONAL.map(|content_type| (query, content_type)))
        {
            for (mode, body) in modes
                .iter()
                .flat_map(|mode| BODIES.map(|body| (mode, body)))
            {
                let uri = query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
                let mut request = Request::builder().method(*method).uri(&uri);
                if let Some(content_type) = content_type {
                    request = request.header(header::CONTENT_TYPE, content_type);
                }
                let request = request.body(()).expect("a request");
                let digest =
                    *Fingerprint::of(&request, body.as_bytes(), *mode, FingerprintDigest::Sha256)
                        .as_bytes();
                let shown = format!("{method} {uri} {content_type:?} {body}");
                if let Some((other_mode, other)) = seen.insert(digest, (*mode, shown.clone())) {
                    // A body that is not JSON is compared as bytes in both modes.
                    assert_eq!(other, shown, "as {mode:?} and {other_mode:?}");
                } else {
                    count += 1;
                }
            }
        }
    }
    // Three of the bodies have a different form as JSON.
    assert_eq!(count, METHODS.len() * PATHS.len() * 25 * (BODIES.len() + 3));
}

/// Checks for each mode whether a different body changes the fingerprint.
#[test]
fn a_fingerprint_is_the_same_for_the_same_request() {
    let request = Request::post("/a?b").header(header::CONTENT_TYPE, "text/plain");
    let request = request.body(()).expect("a request");
    for mode in [
        FingerprintMode::Body,
        FingerprintMode::JSON,
        FingerprintMode::json_pointers(&["/a"]),
        FingerprintMode::WithoutBody,
    ] {
        let of = |body: &[u8]| Fingerprint::of(&request, body, mode, FingerprintDigest::Sha256);
        assert_eq!(of(b"{\"a\":1}"), of(b"{\"a\":1}"), "{mode:?}");
        let is_blind = matches!(mode, FingerprintMode::WithoutBody);
        assert_eq!(of(b"{\"a\":1}") == of(b"{\"a\":2}"), is_blind, "{mode:?}");
    }
}
