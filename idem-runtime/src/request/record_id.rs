//! The identifier of a record in a store.

use std::fmt;
use std::str::FromStr;

use sha2::Sha256;

use crate::request::digest::Absorber;
use crate::request::hex::{self, Hex};
use crate::request::scope::Scope;

/// The identifier of a record in a store.
///
/// A record id is the SHA-256 of a versioned domain tag, the namespace, the scope and the key. Each
/// part has its length in front, so that no two different triples give the same input. Neither a
/// token nor a key can be recovered from a record id.
///
/// `Display` writes all 64 hexadecimal digits, and `FromStr` parses them. Logs show the first
/// twelve digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId([u8; 32]);

const DOMAIN: &[u8] = b"axum-idem record id v1\0";

impl RecordId {
    /// Computes the id of the record for `key` in `scope` and `namespace`. Pass `key` without the
    /// quotes and escapes of its header.
    #[must_use]
    pub fn new(namespace: &str, scope: &Scope, key: &str) -> Self {
        let mut digest = Absorber::<Sha256>::begin(DOMAIN);
        for part in [namespace.as_bytes(), scope.as_bytes(), key.as_bytes()] {
            digest.absorb_counted(part);
        }
        Self(digest.finish())
    }

    /// Returns the 32 bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Creates a record id from the 32 bytes of a digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the first twelve hexadecimal digits, for logs.
    pub(crate) fn short(&self) -> impl fmt::Display + fmt::Debug + '_ {
        Hex(&self.0[..6])
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({})", self.short())
    }
}

/// The error for a text that is not 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record id must have 64 hexadecimal digits")]
pub struct ParseRecordIdError;

impl FromStr for RecordId {
    type Err = ParseRecordIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::parse(text).map(Self).ok_or(ParseRecordIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(namespace: &str, scope: &str, key: &str) -> RecordId {
        RecordId::new(namespace, &Scope::new().value(scope), key)
    }

    #[test]
    fn the_parts_of_a_record_id_are_delimited() {
        assert_ne!(
            id("", "a", "x:POST:/count:y"),
            id("", "a:POST:/count:x", "y")
        );
        assert_ne!(id("a", "", ""), id("", "a", ""));
        assert_ne!(id("a", "", ""), id("", "", "a"));
        assert_ne!(id("ab", "c", "d"), id("a", "bc", "d"));
        assert_ne!(RecordId::new("", &Scope::new(), "k"), id("", "", "k"));
    }

    #[test]
    fn a_record_id_is_parsed_from_its_text() {
        let id = id("production", "acme", "abc");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 64);
        assert_eq!("abc".parse::<RecordId>(), Err(ParseRecordIdError));
        assert_eq!("g".repeat(64).parse::<RecordId>(), Err(ParseRecordIdError));
    }

    /// A change of the format makes every stored record unreachable. It needs a new domain tag and
    /// a changelog entry.
    #[test]
    fn the_format_of_record_ids_never_changes() {
        let id = RecordId::new(
            "production",
            &Scope::new().token("Bearer a").value(7),
            "k-1",
        );
        assert_eq!(
            id.to_string(),
            "bc309be87b848a74f765c291241ab154656c29c186004dd9fee42d6703704b9b"
        );
    }
}
