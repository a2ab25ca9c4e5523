//! What must not be found, in every spelling that a server or a log could use.

use std::collections::BTreeSet;

use axum_idem::{Fingerprint, RecordId};

/// Texts that only the service and its clients may know. Each of them occurs nowhere else.
pub(crate) const BODY: &str = "body-0f0b6c1e-of-the-response";
pub(crate) const HEADER: &str = "header-52c7d90a-of-the-response";
pub(crate) const RESOLVED: &str = "resolved-8d1f43b7-by-an-operator";
pub(crate) const REQUEST: &str = "request-71a9e2c4-of-the-client";
pub(crate) const KEY: &str = "key-e93b7f20-of-the-client";
pub(crate) const TOKEN: &str = "token-c4608d51-of-the-client";
pub(crate) const WORKSPACE: &str = "workspace-2b9d7ee8-in-the-scope";

/// The digests without a secret, with which a guess can be checked.
pub(crate) const RECORD_ID: &str = "the record id without a secret";
pub(crate) const FINGERPRINT: &str = "the fingerprint without a secret";

/// All that the service must hide.
pub(crate) struct Needles(Vec<(&'static str, Vec<u8>)>);

impl Needles {
    pub(crate) fn new(id: RecordId, fingerprint: Fingerprint) -> Self {
        let texts = [BODY, HEADER, RESOLVED, REQUEST, KEY, TOKEN, WORKSPACE];
        let texts = texts.map(|text| (text, text.as_bytes()));
        let digests = [
            (RECORD_ID, &id.as_bytes()[..]),
            (FINGERPRINT, &fingerprint.as_bytes()[..]),
        ];
        let all = texts.iter().chain(&digests);
        Self(
            all.flat_map(|(name, bytes)| spellings(bytes).map(|it| (*name, it)))
                .collect(),
        )
    }

    /// The names of all that these bytes contain.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> BTreeSet<&'static str> {
        // Few places begin with the first two bytes of a needle.
        let mut begins = vec![false; 1 << 16];
        let start = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
        for (_, needle) in &self.0 {
            begins[start(needle)] = true;
        }
        let mut found = BTreeSet::new();
        for at in 0..bytes.len().saturating_sub(1) {
            if begins[start(&bytes[at..])] {
                let here = self.0.iter().filter(|it| bytes[at..].starts_with(&it.1));
                found.extend(here.map(|(name, _)| *name));
            }
        }
        found
    }
}

/// As they are, as hexadecimal digits of either case, and as numbers in the `Debug` output of bytes.
fn spellings(bytes: &[u8]) -> [Vec<u8>; 4] {
    let joined = |text: Vec<String>, between: &str| text.join(between).into_bytes();
    let each = |spell: fn(&u8) -> String| bytes.iter().map(spell).collect::<Vec<_>>();
    [
        bytes.to_vec(),
        joined(each(|byte| format!("{byte:02x}")), ""),
        joined(each(|byte| format!("{byte:02X}")), ""),
        joined(each(ToString::to_string), ", "),
    ]
}

#[test]
fn every_spelling_is_found() {
    let id = RecordId::from_bytes([0xab; 32]);
    let needles = Needles::new(id, Fingerprint::from_bytes([7; 32]));
    for (text, name) in [
        (format!("x{BODY}"), BODY),
        (format!("{:?}", TOKEN.as_bytes()), TOKEN),
        (format!("\\x{}", "AB".repeat(32)), RECORD_ID),
        (format!("0{}", "07".repeat(32)), FINGERPRINT),
    ] {
        assert_eq!(needles.found_in(text.as_bytes()), [name].into(), "{text}");
    }
    assert!(needles.found_in(b"key-e93b7f20-of-the-clien").is_empty());
}
