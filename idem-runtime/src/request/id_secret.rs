//! The secret with which a service computes record ids and fingerprints.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Turns a digest that everybody can compute into one that only holders of the secret can compute: an
/// HMAC-SHA-256 of the digest.
///
/// The digests are collision-resistant, so the HMAC of a digest is as good as the HMAC of its whole input, and the
/// cost does not depend on the length of the input.
///
/// A function in a box, so that only a service with a secret contains the code of HMAC.
#[derive(Clone)]
pub(crate) struct IdSecret(Arc<Keyed>);

/// Returns the HMAC of a domain tag and a digest.
type Keyed = dyn Fn(&[u8], &[u8; 32]) -> [u8; 32] + Send + Sync;

/// What the digest is. Equal digests of two purposes give different results.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Scope,
    Key,
    Fingerprint,
}

impl IdSecret {
    /// The shortest secret, in bytes.
    pub(crate) const MIN_LEN: usize = 16;

    /// HMAC takes a secret of any length.
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < Self::MIN_LEN {
            return None;
        }
        let keyed = Hmac::<Sha256>::new_from_slice(secret).ok()?;
        Some(Self(Arc::new(move |domain, digest| {
            let mut hmac = keyed.clone();
            hmac.update(domain);
            hmac.update(digest);
            hmac.finalize().into_bytes().into()
        })))
    }

    pub(crate) fn apply(&self, purpose: Purpose, digest: &[u8; 32]) -> [u8; 32] {
        let domain: &[u8] = match purpose {
            Purpose::Scope => b"axum-idem scope id k1\0",
            Purpose::Key => b"axum-idem record id k1\0",
            Purpose::Fingerprint => b"axum-idem fingerprint k1\0",
        };
        (self.0)(domain, digest)
    }
}

/// Shows nothing of the secret.
impl fmt::Debug for IdSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdSecret(hidden)")
    }
}
