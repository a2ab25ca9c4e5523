//! Computes scope ids and record ids in one namespace.

use std::fmt;
use std::sync::LazyLock;

use sha2::Sha256;

use crate::request::digest::{Absorber, Digest as _};
use crate::request::id_secret::{IdSecret, Purpose};
use crate::request::record_id::RecordId;
use crate::request::scope::Scope;
use crate::request::scope_id::ScopeId;

/// SHA-256 works in blocks of this length.
const BLOCK: usize = 64;

const SCOPE_DOMAIN: &[u8] = b"axum-idem scope id v1\0";
const KEY_DOMAIN: &[u8] = b"axum-idem record id v2\0";

/// The digest of a key after its domain tag.
static KEYS: LazyLock<Sha256> = LazyLock::new(|| filled(KEY_DOMAIN, &[]));

/// Computes scope ids and record ids in one namespace.
///
/// The namespace of a service never changes, so its part of the digest is computed once. It fills
/// whole blocks, and a scope and a key mostly fit into one block each: both digests together take two
/// blocks for each request.
pub(crate) struct Namespace {
    name: Box<str>,
    /// The digest of a scope after its domain tag and the namespace.
    scopes: Sha256,
    secret: Option<IdSecret>,
}

impl Namespace {
    pub(crate) fn new(name: impl Into<Box<str>>) -> Self {
        let name = name.into();
        let scopes = filled(SCOPE_DOMAIN, name.as_bytes());
        Self {
            name,
            scopes,
            secret: None,
        }
    }

    /// The same namespace, whose ids only holders of the secret can compute.
    pub(crate) fn with_secret(self, secret: Option<IdSecret>) -> Self {
        Self { secret, ..self }
    }

    pub(crate) fn secret(&self) -> Option<&IdSecret> {
        self.secret.as_ref()
    }

    /// The digest, or its HMAC when there is a secret.
    fn keyed(&self, purpose: Purpose, digest: [u8; 32]) -> [u8; 32] {
        match &self.secret {
            None => digest,
            Some(secret) => secret.apply(purpose, &digest),
        }
    }

    /// The id of a scope.
    pub(crate) fn scope_id(&self, scope: &Scope) -> ScopeId {
        let mut digest = Absorber::resume(self.scopes.clone());
        digest.absorb_counted(scope.as_bytes());
        ScopeId::from_bytes(first_half(self.keyed(Purpose::Scope, digest.finish())))
    }

    /// The id of the record for `key`, as unescaped from its header, in `scope`.
    pub(crate) fn record_id(&self, scope: &Scope, key: &str) -> RecordId {
        let scope = self.scope_id(scope);
        let mut digest = Absorber::resume(KEYS.clone());
        digest.absorb(scope.as_bytes());
        digest.absorb_counted(key.as_bytes());
        RecordId::from_halves(scope, first_half(self.keyed(Purpose::Key, digest.finish())))
    }
}

impl ScopeId {
    /// The id of `scope` in `namespace`.
    ///
    /// [`Idempotency::scope_id`](crate::Idempotency::scope_id) takes the namespace of the service.
    #[must_use]
    pub fn new(namespace: &str, scope: &Scope) -> Self {
        Namespace::new(namespace).scope_id(scope)
    }
}

impl RecordId {
    /// The id of the record for `key`, as unescaped from its header, in `scope` and `namespace`.
    #[must_use]
    pub fn new(namespace: &str, scope: &Scope, key: &str) -> Self {
        Namespace::new(namespace).record_id(scope, key)
    }
}

/// Shows the name.
impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// A digest that has absorbed a domain tag and a part with its length, padded with zeros to whole
/// blocks. The length distinguishes the part from the padding.
fn filled(domain: &[u8], part: &[u8]) -> Sha256 {
    let mut bytes = domain.to_vec();
    bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
    bytes.extend_from_slice(part);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    let mut digest = Sha256::default();
    digest.update(&bytes);
    digest
}

fn first_half(digest: [u8; 32]) -> [u8; ScopeId::LEN] {
    let mut half = [0; ScopeId::LEN];
    half.copy_from_slice(&digest[..ScopeId::LEN]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here forgets every record in every store. It takes a new domain tag and an entry in
    /// the changelog.
    #[test]
    fn the_format_of_record_ids_never_changes() {
        let scope = Scope::new().token("Bearer a").value(7);
        let id = Namespace::new("production").record_id(&scope, "k-1");
        assert_eq!(
            id.to_string(),
            "132761e86e43274d2b18344caa6c8ddf35a3e50d352ff009d6231c532d89d987"
        );
    }

    /// A change here forgets every record of services with a secret. Python's `hmac` computed the id.
    #[test]
    fn the_format_of_record_ids_with_a_secret_never_changes() {
        let scope = Scope::new().token("Bearer a").value(7);
        let with = |secret: &[u8]| {
            let namespace = Namespace::new("production").with_secret(IdSecret::new(secret));
            namespace.record_id(&scope, "k-1")
        };
        assert_eq!(
            with(&[7; 32]).to_string(),
            "de7cdc14287c7c47a5eccbc06e73b156d3e67b5188e5680c6760962927ed2329"
        );
        assert_ne!(with(&[7; 32]).scope_id(), with(&[8; 32]).scope_id());
        assert!(IdSecret::new(&[7; 15]).is_none(), "too short");
    }

    #[test]
    fn long_namespaces_scopes_and_keys_have_different_ids() {
        let long = "x".repeat(200);
        let longer = "x".repeat(201);
        let scope = |text: &str| Scope::new().value(text);
        let id = |namespace: &str, text: &str, key: &str| {
            Namespace::new(namespace).record_id(&scope(text), key)
        };
        let ids = [
            id(&long, &long, &long),
            id(&longer, &long, &long),
            id(&long, &longer, &long),
            id(&long, &long, &longer),
        ];
        for (i, one) in ids.iter().enumerate() {
            assert!(ids[i + 1..].iter().all(|other| other != one));
        }
    }
}
