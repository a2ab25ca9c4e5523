//! Tells a retry from a reused key.

use std::fmt;

use axum::extract::OriginalUri;
use http::{Request, header};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::request::canonical_json::Document;
use crate::request::digest::{Absorber, Digest};
use crate::settings::policy::FingerprintMode;

/// Tells a retry of the first request from another request under the same key.
///
/// A digest of the body, the method, the path and query as the client sent them, the content type,
/// and a versioned domain tag, so delimited that no two different requests give the same input.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; 32]);

/// Which digest makes the fingerprints of a service.
///
/// A fingerprint of the one never equals one of the other. Where a service changes from one to the
/// other, a retry that crosses the change is refused as a reused key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FingerprintDigest {
    /// SHA-256 (FIPS 180-4).
    #[default]
    Sha256,
    /// BLAKE3: several times as fast for bodies of some KiB and more.
    #[cfg(feature = "blake3")]
    Blake3,
}

const TAG: usize = 9;

impl FingerprintDigest {
    /// Stands at the end of the input: the version of the form, and which digest it is.
    const fn tag(self) -> &'static [u8; TAG] {
        match self {
            Self::Sha256 => b"idem f1 s",
            #[cfg(feature = "blake3")]
            Self::Blake3 => b"idem f1 b",
        }
    }
}

/// What the parts mean, in one byte. Bytes never pass for a canonical value, and a query or a
/// content type that is absent is not one that is empty.
mod flag {
    pub(super) const CANONICAL_JSON: u8 = 1;
    pub(super) const WITHOUT_BODY: u8 = 2;
    pub(super) const QUERY: u8 = 4;
    pub(super) const CONTENT_TYPE: u8 = 8;
}

impl Fingerprint {
    /// The fingerprint of a request whose body has been read.
    pub(crate) fn of<B>(
        request: &Request<B>,
        body: &[u8],
        mode: FingerprintMode,
        digest: FingerprintDigest,
    ) -> Self {
        let uri = request
            .extensions()
            .get::<OriginalUri>()
            .map_or(request.uri(), |original| &original.0);
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let document = match mode {
            FingerprintMode::Json | FingerprintMode::JsonPointers(_) => Document::parse(body),
            FingerprintMode::Body | FingerprintMode::WithoutBody => None,
        };
        let (mut flags, body) = match (mode, &document) {
            (FingerprintMode::WithoutBody, _) => (flag::WITHOUT_BODY, Body::Bytes(&[])),
            (FingerprintMode::JsonPointers(pointers), Some(document)) => {
                (flag::CANONICAL_JSON, Body::JsonAt(document, pointers))
            }
            (_, Some(document)) => (flag::CANONICAL_JSON, Body::Json(document)),
            (_, None) => (0, Body::Bytes(body)),
        };
        if uri.query().is_some() {
            flags |= flag::QUERY;
        }
        if content_type.is_some() {
            flags |= flag::CONTENT_TYPE;
        }
        let input = Input {
            body,
            flags,
            head: [
                request.method().as_str().as_bytes(),
                uri.path().as_bytes(),
                uri.query().unwrap_or_default().as_bytes(),
                content_type.map_or(&[], |value| counted(value.as_bytes(), mode)),
            ],
            tag: digest.tag(),
        };
        Self(match digest {
            FingerprintDigest::Sha256 => input.digest::<Sha256>(),
            #[cfg(feature = "blake3")]
            FingerprintDigest::Blake3 => input.digest::<blake3::Hasher>(),
        })
    }

    /// The 32 bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A fingerprint from the 32 bytes of a digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// What enters the digest. It can be read from its end: the tag, the flags, the length of the body,
/// and with that where the rest begins. The body comes first, for a wide digest is fastest from its start on.
struct Input<'a> {
    body: Body<'a>,
    flags: u8,
    head: [&'a [u8]; 4],
    tag: &'static [u8; TAG],
}

/// What of the body counts.
enum Body<'a> {
    Bytes(&'a [u8]),
    /// The canonical form, which enters the digest as it is written.
    Json(&'a Document<'a>),
    /// Those of the values at JSON pointers.
    JsonAt(&'a Document<'a>, &'a [&'a str]),
}

impl Body<'_> {
    /// A digest that begins with the body, and how long that is.
    fn begin<D: Digest>(&self) -> (Absorber<D>, u64) {
        if let Self::Bytes(bytes) = self {
            return (Absorber::begin(bytes), bytes.len() as u64);
        }
        let (mut digest, mut len) = (Absorber::begin(&[]), 0);
        let mut absorb = |bytes: &[u8]| {
            digest.absorb(bytes);
            len += bytes.len() as u64;
        };
        match self {
            Self::Bytes(bytes) => absorb(bytes),
            Self::Json(document) => document.write(&mut absorb),
            Self::JsonAt(document, pointers) => document.write_at(pointers, &mut absorb),
        }
        (digest, len)
    }
}

impl Input<'_> {
    fn digest<D: Digest>(&self) -> [u8; 32] {
        let (mut digest, len) = self.body.begin::<D>();
        for part in self.head {
            digest.absorb_counted(part);
        }
        digest.absorb(&len.to_le_bytes());
        digest.absorb(&[self.flags]);
        digest.absorb(self.tag);
        digest.finish()
    }
}

/// What of the content type counts. Its parameters tell how to read the body, such as the boundary
/// that a client invents anew for each multipart form: without the body they mean nothing.
fn counted(content_type: &[u8], mode: FingerprintMode) -> &[u8] {
    match mode {
        FingerprintMode::WithoutBody => {
            let essence = content_type.split(|byte| *byte == b';').next();
            essence.unwrap_or_default().trim_ascii_end()
        }
        _ => content_type,
    }
}

/// Takes the same time wherever the two differ, so that answers tell nothing about a stored digest.
impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        // Words, because `subtle` hides each comparison from the optimizer, and 32 bytes would cost
        // eight times as much.
        let words = |it: &Self| {
            let (words, _) = it.0.as_chunks::<8>();
            std::array::from_fn::<_, 4, _>(|at| u64::from_ne_bytes(words[at]))
        };
        words(self)[..].ct_eq(&words(other)[..]).into()
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

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
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

    #[test]
    fn json_forgets_order_and_white_space_only() {
        let json = |body: &str| {
            Fingerprint::of(
                &request("POST", "/", None),
                body.as_bytes(),
                FingerprintMode::Json,
                FingerprintDigest::Sha256,
            )
        };
        assert_eq!(
            json(r#"{"a":1,"b":[2,3]}"#),
            json("{ \"b\" : [2, 3],\n\"a\": 1 }")
        );
        assert_ne!(json(r#"{"a":[2,3]}"#), json(r#"{"a":[3,2]}"#));
        assert_ne!(json(r#"{"a":1}"#), json(r#"{"a":"1"}"#));
        assert_ne!(json(r#"{"a":1}"#), json(r#"{"a":1.0}"#));
        assert_ne!(json("9007199254740993"), json("9007199254740992"));
        assert_ne!(json("not json"), json("not  json"));
    }

    #[test]
    fn pointers_see_nothing_else() {
        let mode = FingerprintMode::JsonPointers(&["/amount", "/to/iban"]);
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
    fn without_the_body_its_boundary_does_not_count() {
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
    fn the_digests_never_meet() {
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

    /// As [`golden`], for the canonical form of a body.
    #[test]
    fn golden_json() {
        let hex = |mode| {
            let body = br#"{ "b": [1, "\u0078"], "a": null }"#;
            let request = request("POST", "/", None);
            let fingerprint = Fingerprint::of(&request, body, mode, FingerprintDigest::Sha256);
            RecordId::from_bytes(*fingerprint.as_bytes()).to_string()
        };
        assert_eq!(
            hex(FingerprintMode::Json),
            "65c11b9fde0810104a09d4295265f923a00247fbea9e12d10bac6838b760d748"
        );
        assert_eq!(
            hex(FingerprintMode::JsonPointers(&["/b/0", "/c"])),
            "6b60dced4b186b2bd7233ec16d021de7ce8df0ff14312370722c935cd3cc95f8"
        );
    }

    /// Two deployments share a store: a change here takes a new domain tag and a note.
    #[test]
    fn golden() {
        let hex =
            |fingerprint: Fingerprint| RecordId::from_bytes(*fingerprint.as_bytes()).to_string();
        assert_eq!(
            hex(of(
                "POST",
                "/accounts/1/trades?dry=1",
                Some("application/json"),
                "{}"
            )),
            "5a23928f804985ccaf07b2a99ab3a454e2b3618982eafa820bd95bce0c82a07f"
        );
    }
}
