//! The identifier of a record in a store.

use std::fmt;
use std::str::FromStr;

use crate::request::hex;
use crate::request::scope_id::ScopeId;

/// The identifier of a record in a store.
///
/// The first 16 bytes are the [`ScopeId`], a digest of the namespace and the scope. So the records of one
/// caller are neighbours in the order of their ids. The last 16 bytes are a digest of the scope id and the
/// key. Each digest is the first half of a SHA-256 over a versioned domain tag and its parts, with their lengths, so
/// that no two different triples of namespace, scope and key give the same input. Neither a token nor a key can be read
/// back from a record id.
///
/// `Display` writes all 64 hexadecimal digits. `FromStr` reads them, also as the URN that
/// [`urn`](Self::urn) returns. Logs show the [`ShortId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId([u8; 32]);

const URN: &str = "urn:axum-idem:record:";

impl RecordId {
    pub(crate) fn from_halves(scope: ScopeId, key: [u8; 16]) -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(scope.as_bytes());
        bytes[16..].copy_from_slice(&key);
        Self(bytes)
    }

    /// The 32 bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A record id from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The scope of the record: the first 16 bytes.
    #[must_use]
    pub fn scope_id(&self) -> ScopeId {
        let mut scope = [0; 16];
        scope.copy_from_slice(&self.0[..16]);
        ScopeId::from_bytes(scope)
    }

    /// The twelve digits that logs show.
    #[must_use]
    pub fn short(&self) -> ShortId {
        let mut short = [0; 6];
        short.copy_from_slice(&self.0[16..22]);
        ShortId(short)
    }

    /// Returns the id as a URN: `urn:axum-idem:record:` and the 64 digits. The `instance` of a
    /// [`Problem`](crate::Problem) is this URN.
    #[must_use]
    pub fn urn(&self) -> String {
        let mut urn = String::with_capacity(URN.len() + 64);
        urn.push_str(URN);
        // A string takes everything.
        let _ = hex::write(&mut urn, &self.0);
        urn
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

/// Shows all digits, because an operator looks a record up by them.
impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

/// The text is neither 64 hexadecimal digits nor the URN of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record id is 64 hexadecimal digits, alone or after `{URN}`")]
pub struct ParseRecordIdError;

impl FromStr for RecordId {
    type Err = ParseRecordIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(URN).unwrap_or(text);
        let bytes = hex::read(digits.as_bytes()).ok_or(ParseRecordIdError)?;
        Ok(Self(bytes))
    }
}

/// The twelve hexadecimal digits by which logs name a record.
///
/// They are digits 33 to 44 of the [`RecordId`], because the digits before belong to the scope and are equal for
/// all records of one caller. In rare cases, two records of a store have the same short id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId([u8; 6]);

impl ShortId {
    /// The 6 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }

    /// A short id from its 6 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortId({self})")
    }
}

/// The text is not 12 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a short id is 12 hexadecimal digits")]
pub struct ParseShortIdError;

impl FromStr for ShortId {
    type Err = ParseShortIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = hex::read(text.as_bytes()).ok_or(ParseShortIdError)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::scope::Scope;

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
    fn a_record_id_is_read_from_its_digits_and_from_its_urn() {
        let id = id("production", "acme", "abc");
        assert_eq!(id.to_string().len(), 64);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.urn(), format!("urn:axum-idem:record:{id}"));
        assert_eq!(id.urn().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), format!("RecordId({id})"));
        assert_eq!("abc".parse::<RecordId>(), Err(ParseRecordIdError));
        assert_eq!("g".repeat(64).parse::<RecordId>(), Err(ParseRecordIdError));
    }

    #[test]
    fn a_record_id_contains_its_scope_and_its_short_id() {
        let (one, other) = (id("production", "acme", "a"), id("production", "acme", "b"));
        let scope = ScopeId::new("production", &Scope::new().value("acme"));
        assert_eq!((one.scope_id(), other.scope_id()), (scope, scope));
        assert_ne!(one.short(), other.short());
        assert_eq!(one.to_string()[..32], scope.to_string());
        assert_eq!(one.to_string()[32..44], one.short().to_string());
        assert_eq!(one.short().to_string().parse(), Ok(one.short()));
        assert_eq!("abc".parse::<ShortId>(), Err(ParseShortIdError));
    }
}
