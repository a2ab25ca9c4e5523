//! Distinguishes a retry from a reused key.

use std::fmt;

use axum::extract::OriginalUri;
use http::{HeaderValue, Request};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::request::canonical_json::Document;
use crate::request::digest::{Absorber, Digest};
use crate::request::id_secret::{IdSecret, Purpose};
use crate::settings::policy::FingerprintMode;

/// Digest that distinguishes a retry of the first request from a different request with the same
/// key.
///
/// The input consists of the body, the method, the path and query as the client sent them, the
/// content type, and a versioned domain tag. A layer may have given the request another URI. Then the input also contains
/// this URI. The parts are delimited, so that no two different
/// requests give the same input.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; 32]);

/// The digest that computes the fingerprints of a service.
///
/// The fingerprints of two different digests are never equal. When a service changes its digest, a
/// retry of a request from before the change is refused as a reused key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FingerprintDigest {
    /// SHA-256 (FIPS 180-4).
    #[default]
    Sha256,
    /// BLAKE3, which is faster than SHA-256 for bodies of 16 KiB and more.
    #[cfg(feature = "blake3")]
    Blake3,
}

const TAG: usize = 9;

impl FingerprintDigest {
    /// Returns the end of the input: the version of the format, and the digest.
    const fn tag(self) -> &'static [u8; TAG] {
        match self {
            Self::Sha256 => b"idem f1 s",
            #[cfg(feature = "blake3")]
            Self::Blake3 => b"idem f1 b",
        }
    }
}

/// The meaning of the parts, in one byte. The flags distinguish bytes from a canonical value, an absent
/// query or content type from an empty one, and an input with a fifth part from one without.
mod flag {
    pub(super) const CANONICAL_JSON: u8 = 1;
    pub(super) const WITHOUT_BODY: u8 = 2;
    pub(super) const QUERY: u8 = 4;
    pub(super) const CONTENT_TYPE: u8 = 8;
    pub(super) const CHANGED_URI: u8 = 16;
}

impl Fingerprint {
    /// Computes the fingerprint of a request whose `Content-Type` counts.
    #[cfg(test)]
    pub(crate) fn of<B>(
        request: &Request<B>,
        body: &[u8],
        mode: FingerprintMode,
        digest: FingerprintDigest,
    ) -> Self {
        let content_type = request.headers().get(http::header::CONTENT_TYPE);
        Self::with_content_type(request, content_type, body, mode, digest)
    }

    /// Computes the fingerprint of a request whose body has been read. `content_type` is the content type
    /// that counts.
    pub(crate) fn with_content_type<B>(
        request: &Request<B>,
        content_type: Option<&HeaderValue>,
        body: &[u8],
        mode: FingerprintMode,
        digest: FingerprintDigest,
    ) -> Self {
        let own = request.uri();
        let original = request.extensions().get::<OriginalUri>();
        let uri = original.map_or(own, |original| &original.0);
        let mut flags = 0;
        // A nested router strips the start of the path. Any other difference comes from a layer that has changed the URI, or
        // from a batch that has cloned the extensions of its request for each item.
        let is_nested =
            uri.query() == own.query() && (own.path() == "/" || uri.path().ends_with(own.path()));
        let changed = if is_nested {
            None
        } else {
            flags |= flag::CHANGED_URI;
            own.path_and_query()
        };
        if uri.query().is_some() {
            flags |= flag::QUERY;
        }
        if content_type.is_some() {
            flags |= flag::CONTENT_TYPE;
        }
        let input = Input {
            body,
            mode,
            flags,
            head: [
                request.method().as_str().as_bytes(),
                uri.path().as_bytes(),
                uri.query().unwrap_or_default().as_bytes(),
                content_type.map_or(&[], |value| counted(value.as_bytes(), mode)),
            ],
            changed: changed.map(|uri| uri.as_str().as_bytes()),
            tag: digest.tag(),
        };
        Self(match digest {
            FingerprintDigest::Sha256 => input.digest::<Sha256>(),
            #[cfg(feature = "blake3")]
            FingerprintDigest::Blake3 => input.digest::<blake3::Hasher>(),
        })
    }

    /// Returns the fingerprint of a service with an id secret.
    pub(crate) fn keyed(self, secret: &IdSecret) -> Self {
        Self(secret.apply(Purpose::Fingerprint, &self.0))
    }

    /// Returns the 32 bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Creates a fingerprint from the 32 bytes of a digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// The input of the digest. It can be parsed from its end: the tag, the flags, the length of the
/// body, and then the start of the other parts. The body comes first, because a digest with wide
/// blocks is fastest when its input starts with the long part.
struct Input<'a> {
    body: &'a [u8],
    mode: FingerprintMode,
    /// Without the flags of the body.
    flags: u8,
    head: [&'a [u8]; 4],
    /// The URI that the handler sees, when it is not the end of the URI of the client.
    changed: Option<&'a [u8]>,
    tag: &'static [u8; TAG],
}

impl Input<'_> {
    fn digest<D: Digest>(&self) -> [u8; 32] {
        let (mut digest, len, flags) = self.begin::<D>();
        for part in self.head.into_iter().chain(self.changed) {
            digest.absorb_counted(part);
        }
        digest.absorb(&len.to_le_bytes());
        digest.absorb(&[self.flags | flags]);
        digest.absorb(self.tag);
        digest.finish()
    }

    /// Returns a digest that starts with the part of the body that is compared, the length of this part, and
    /// its flags.
    fn begin<D: Digest>(&self) -> (Absorber<D>, u64, u8) {
        let (write, pointers) = match self.mode {
            FingerprintMode::WithoutBody => return (Absorber::begin(&[]), 0, flag::WITHOUT_BODY),
            FingerprintMode::Body => return self.begin_with_bytes(),
            FingerprintMode::Json(write) => (write, None),
            FingerprintMode::JsonPointers(write, pointers) => (write, Some(pointers)),
        };
        // The canonical form is fed into the digest while it is written.
        let (mut digest, mut len) = (Absorber::begin(&[]), 0);
        let is_json = write(self.body, pointers, &mut |bytes| {
            digest.absorb(bytes);
            len += bytes.len() as u64;
        });
        if is_json {
            (digest, len, flag::CANONICAL_JSON)
        } else {
            self.begin_with_bytes()
        }
    }

    fn begin_with_bytes<D: Digest>(&self) -> (Absorber<D>, u64, u8) {
        (Absorber::begin(self.body), self.body.len() as u64, 0)
    }
}

impl FingerprintMode {
    /// Compares the JSON values.
    pub const JSON: Self = Self::Json(write_json);

    /// Compares the JSON values at these pointers (RFC 6901). Compares the bytes of a body that has none of the values.
    #[must_use]
    pub const fn json_pointers(pointers: &'static [&'static str]) -> Self {
        Self::JsonPointers(write_json, pointers)
    }
}

/// Only [`FingerprintMode`] names this function, so that a program that compares no JSON does not contain it.
fn write_json(body: &[u8], pointers: Option<&[&str]>, out: &mut dyn FnMut(&[u8])) -> bool {
    let Some(document) = Document::parse(body) else {
        return false;
    };
    match pointers {
        None => document.write(out),
        Some(pointers) => return document.write_at(pointers, out),
    }
    true
}

/// Returns the part of the content type that is compared. The parameters describe how to read the
/// body. An example is the boundary, which a client generates for each multipart form. When the
/// body is not compared, the parameters are not compared either.
fn counted(content_type: &[u8], mode: FingerprintMode) -> &[u8] {
    match mode {
        FingerprintMode::WithoutBody => {
            let essence = content_type.split(|byte| *byte == b';').next();
            essence.unwrap_or_default().trim_ascii_end()
        }
        _ => content_type,
    }
}

/// Compares in constant time, so that the time of a response reveals nothing about a stored digest.
impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        // Collects the differences of 4 words, and compares once. `subtle` hides each comparison from the
        // optimizer, so a comparison for each byte would stay one.
        let (ours, _) = self.0.as_chunks::<8>();
        let (theirs, _) = other.0.as_chunks::<8>();
        let mut differences = 0;
        for (ours, theirs) in ours.iter().zip(theirs) {
            differences |= u64::from_ne_bytes(*ours) ^ u64::from_ne_bytes(*theirs);
        }
        differences.ct_eq(&0).into()
    }
}

impl Eq for Fingerprint {}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
        write!(f, "Fingerprint({first:08x}…)")
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::request::record_id::RecordId;

    fn request(method: &str, uri: &str, content_type: Option<&str>) -> Request<()> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(()).expect("a request")
    }

    fn of(method: &str, uri: &str, content_type: Option<&str>, body: &str) -> Fingerprint {
        Fingerprint::of(
            &request(method, uri, content_type),
            body.as_bytes(),
            FingerprintMode::Body,
            FingerprintDigest::Sha256,
        )
    }

    /// The comparison does not end at the first difference, so a mistake in it could miss some bytes.
    #[test]
    fn fingerprints_that_differ_in_one_bit_are_not_equal() {
        let bytes = *of("POST", "/a", None, "b").as_bytes();
        assert_eq!(
            Fingerprint::from_bytes(bytes),
            Fingerprint::from_bytes(bytes)
        );
        for bit in 0..8 * bytes.len() {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(
                Fingerprint::from_bytes(bytes),
                Fingerprint::from_bytes(other),
                "{bit}"
            );
        }
    }

    #[test]
    fn each_part_changes_the_fingerprint_and_parts_are_delimited() {
        let json = Some("application/json");
        let all = [
            of("POST", "/a", json, "b"),
            of("PATCH", "/a", json, "b"),
            of("POST", "/ab", json, ""),
            of("POST", "/a?b", json, ""),
            of("POST", "/a?", json, ""),
            of("POST", "/a", json, ""),
            of("POST", "/a", json, "{}"),
            of("POST", "/a:b", json, "c"),
            of("POST", "/a", json, "b:c"),
            of("POST", "/a", Some("text/plain"), "b"),
            of("POST", "/a", Some(""), "b"),
            of("POST", "/a", None, "b"),
        ];
        for (i, one) in all.iter().enumerate() {
            for (k, other) in all.iter().enumerate().skip(i + 1) {
                assert_ne!(one, other, "{i} and {k}");
            }
        }
    }

    #[test]
    fn a_nested_router_does_not_hide_the_path() {
        let mut nested = request("POST", "/trades", None);
        let uri = "/v1/trades".parse().expect("a path");
        nested.extensions_mut().insert(OriginalUri(uri));
        let nested = Fingerprint::of(
            &nested,
            b"",
            FingerprintMode::Body,
            FingerprintDigest::Sha256,
        );
        assert_eq!(nested, of("POST", "/v1/trades", None, ""));
        assert_ne!(nested, of("POST", "/trades", None, ""));
    }

    /// A batch may clone its extensions for each item, and `OriginalUri` with them.
    #[test]
    fn a_uri_that_is_not_the_end_of_the_original_one_counts_too() {
        let of_item = |original: &str, uri: &str| {
            let mut item = request("POST", uri, None);
            let original = original.parse().expect("a path");
            item.extensions_mut().insert(OriginalUri(original));
            Fingerprint::of(&item, b"", FingerprintMode::Body, FingerprintDigest::Sha256)
        };
        let one = of_item("/batch", "/accounts/1/close");
        assert_eq!(one, of_item("/batch", "/accounts/1/close"));
        assert_ne!(one, of_item("/batch", "/accounts/2/close"));
        assert_ne!(one, of_item("/batches", "/accounts/1/close"));
        assert_ne!(of_item("/x?a=1", "/x?a=2"), of_item("/x?a=1", "/x?a=3"));
        assert_ne!(of_item("/x?a=1", "/x?a=2"), of("POST", "/x?a=1", None, ""));
    }

    #[test]
    fn fingerprint_json_ignores_only_order_white_space_and_the_spelling_of_numbers() {
        let json = |body: &str| {
            Fingerprint::of(
                &request("POST", "/", None),
                body.as_bytes(),
                FingerprintMode::JSON,
                FingerprintDigest::Sha256,
            )
        };
        assert_eq!(
            json(r#"{"a":1,"b":[2,3]}"#),
            json("{ \"b\" : [2, 3],\n\"a\": 1 }")
        );
        assert_ne!(json(r#"{"a":[2,3]}"#), json(r#"{"a":[3,2]}"#));
        assert_ne!(json(r#"{"a":1}"#), json(r#"{"a":"1"}"#));
        assert_eq!(json(r#"{"a":1}"#), json(r#"{"a":1.0}"#));
        assert_ne!(json("9007199254740993"), json("9007199254740992"));
        assert_ne!(json("not json"), json("not  json"));
    }

    #[test]
    fn fingerprint_pointers_ignore_the_rest_of_the_body() {
        let mode = FingerprintMode::json_pointers(&["/amount", "/to/iban"]);
        let at = |body: &str| {
            Fingerprint::of(
                &request("POST", "/", None),
                body.as_bytes(),
                mode,
                FingerprintDigest::Sha256,
            )
        };
        let first = at(r#"{"amount":1,"to":{"iban":"x"},"at":1}"#);
        assert_eq!(
            first,
            at(r#"{"at":2,"to":{"iban":"x","name":"y"},"amount":1}"#)
        );
        assert_ne!(first, at(r#"{"amount":1,"to":{"iban":"z"},"at":1}"#));
        assert_ne!(first, at(r#"{"amount":1,"at":1}"#));
        assert_ne!(at(r#"{"amount":null}"#), at("{}"));
    }

    #[test]
    fn without_the_body_the_multipart_boundary_is_ignored() {
        let of = |content_type, mode| {
            Fingerprint::of(
                &request("POST", "/", Some(content_type)),
                b"",
                mode,
                FingerprintDigest::Sha256,
            )
        };
        let [one, other] = [
            "multipart/form-data; boundary=1",
            "multipart/form-data ;boundary=2",
        ];
        let mode = FingerprintMode::WithoutBody;
        assert_eq!(of(one, mode), of(other, mode));
        assert_ne!(of(one, mode), of("multipart/mixed; boundary=1", mode));
        assert_ne!(
            of(one, FingerprintMode::Body),
            of(other, FingerprintMode::Body)
        );
    }

    #[cfg(feature = "blake3")]
    #[test]
    fn sha256_and_blake3_fingerprints_differ() {
        let request = request("POST", "/", None);
        let by = |digest| Fingerprint::of(&request, b"{}", FingerprintMode::Body, digest);
        let (sha256, blake3) = (by(FingerprintDigest::Sha256), by(FingerprintDigest::Blake3));
        assert_ne!(sha256, blake3);
        let blake3 = RecordId::from_bytes(*blake3.as_bytes()).to_string();
        assert_eq!(
            blake3,
            "5b1731252088753b2c19f0f71aee6eade9b991959dbbc6cc34b0a6451e9e635c"
        );
    }

    /// A change of the canonical form needs a new domain tag and a changelog entry.
    #[test]
    fn the_fingerprint_of_canonical_json_never_changes() {
        let hex = |mode| {
            let body = br#"{ "b": [1, "\u0078"], "a": null }"#;
            let request = request("POST", "/", None);
            let fingerprint = Fingerprint::of(&request, body, mode, FingerprintDigest::Sha256);
            RecordId::from_bytes(*fingerprint.as_bytes()).to_string()
        };
        assert_eq!(
            hex(FingerprintMode::JSON),
            "fe08da0b2a582a2b64e204eed8682aeddc8d117e4ccd601ac6e530d50b869afb"
        );
        assert_eq!(
            hex(FingerprintMode::json_pointers(&["/b/0", "/c"])),
            "88fafbdfbf2af406dbcfafe8e372e56adc513417cbc034d43a505c9652d1fa6e"
        );
    }

    /// Two deployments may share a store. A change of the format needs a new domain tag and a
    /// changelog entry.
    #[test]
    fn the_format_of_fingerprints_never_changes() {
        let json = Some("application/json");
        for ((method, uri, content_type, body), hex) in [
            (
                ("POST", "/accounts/1/trades?dry=1", json, "{}"),
                "5a23928f804985ccaf07b2a99ab3a454e2b3618982eafa820bd95bce0c82a07f",
            ),
            (
                ("POST", "/", None, ""),
                "5b23b845c3c711f88c78a7fabe8344398e591f652ad417024090aebaca9651b8",
            ),
            (
                ("PUT", "/", None, ""),
                "9d60a80b6feff9ff5bde04b6768628d98199c1ed620d4485a011e35caa86ac33",
            ),
            (
                ("POST", "/?", None, ""),
                "36cef7a05e20746a405a642de7f9d12e69602ffddea3d501ab1ad63730b4e6d6",
            ),
            (
                ("POST", "/a", None, ""),
                "1e600efa41d0044fa6ef1ae0fd85817d3b02f28cbc3fb2334253114c6babf5d4",
            ),
            (
                ("POST", "/", Some(""), ""),
                "c9084b596fc4513497f03c014c19e3630a8958ffd7aaa47652e1912df5cc92d7",
            ),
            (
                ("POST", "/", json, ""),
                "5ed7b3022058c63d2f695fefcc9902b1b0a5cc005c2d051edd98731c5ca3e2e4",
            ),
            (
                ("POST", "/", None, "a"),
                "d73689f3c455322a2d3a1a826d0419bbb1c7ed710f806050f6d3c53a07abc591",
            ),
            (
                ("POST", "/", None, "\0\u{fc}\n"),
                "990bfe7c424714131373310ce0d43aec2a5bd1550ee9c5e8c393e2b87c1ac80f",
            ),
            (
                (
                    "POST",
                    "/%7Ea/b%2Fc?x=1&x=2",
                    Some("text/plain; charset=utf-8"),
                    "a=1",
                ),
                "132fbd69a56f280d217aa29269698c4cc7097da7e1fbb0ac77a3a92a3bfd1b25",
            ),
        ] {
            let fingerprint = of(method, uri, content_type, body);
            let actual = RecordId::from_bytes(*fingerprint.as_bytes()).to_string();
            assert_eq!(actual, hex, "{method} {uri} {content_type:?} {body:?}");
        }
    }
}
