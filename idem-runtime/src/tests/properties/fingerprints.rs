//! No two different requests have one fingerprint.

use std::collections::HashMap;

use http::{Request, header};

use crate::request::fingerprint::{Fingerprint, FingerprintDigest};
use crate::settings::policy::FingerprintMode;

const METHODS: [&str; 2] = ["POST", "POSTa"];
const PATHS: [&str; 5] = ["/", "/a", "/aa", "/a/", "/%3F"];
const OPTIONAL: [Option<&str>; 5] = [None, Some(""), Some("a"), Some("aa"), Some("a/a")];
/// The last one is the form of the number 1, as bytes.
const BODIES: [&str; 7] = [
    "",
    "a",
    "aa",
    "1",
    "[1]",
    "\"a\"",
    "\u{2}\u{1}\0\0\0\0\0\0\u{31}",
];

/// All of them, and not a sample, by bytes and by JSON: the form of a value never passes for bytes.
#[test]
fn no_two_requests_have_one_fingerprint() {
    let mut seen = HashMap::new();
    let modes = [FingerprintMode::Body, FingerprintMode::Json];
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
                    // What is no JSON counts as bytes in either mode.
                    assert_eq!(other, shown, "as {mode:?} and {other_mode:?}");
                } else {
                    count += 1;
                }
            }
        }
    }
    // Three of the bodies have another form as JSON.
    assert_eq!(count, METHODS.len() * PATHS.len() * 25 * (BODIES.len() + 3));
}

/// Which requests differ under each mode: as bytes what differs anywhere, without the body all but it.
#[test]
fn a_fingerprint_is_the_same_for_the_same_request() {
    let request = Request::post("/a?b").header(header::CONTENT_TYPE, "text/plain");
    let request = request.body(()).expect("a request");
    for mode in [
        FingerprintMode::Body,
        FingerprintMode::Json,
        FingerprintMode::JsonPointers(&["/a"]),
        FingerprintMode::WithoutBody,
    ] {
        let of = |body: &[u8]| Fingerprint::of(&request, body, mode, FingerprintDigest::Sha256);
        assert_eq!(of(b"{\"a\":1}"), of(b"{\"a\":1}"), "{mode:?}");
        let is_blind = matches!(mode, FingerprintMode::WithoutBody);
        assert_eq!(of(b"{\"a\":1}") == of(b"{\"a\":2}"), is_blind, "{mode:?}");
    }
}
