//! Names a scope without revealing it.

use std::fmt;
use std::str::FromStr;

use crate::request::hex;

/// Names a scope without revealing it: all records of one caller have the same scope id.
///
/// It is a digest of the namespace and the scope, and the first half of each
/// [`RecordId`](crate::RecordId) of that scope. The scope cannot be read back from the id. But somebody who guesses a
/// scope, such as a small number, can confirm the guess.
///
/// `Display` writes all 32 hexadecimal digits and `FromStr` reads them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId([u8; Self::LEN]);

impl ScopeId {
    pub(crate) const LEN: usize = 16;

    /// The 16 bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A scope id from the 16 bytes of a digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeId({self})")
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope id is 32 hexadecimal digits")]
pub struct ParseScopeIdError;

impl FromStr for ScopeId {
    type Err = ParseScopeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = hex::read(text.as_bytes()).ok_or(ParseScopeIdError)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::scope::Scope;

    #[test]
    fn a_scope_id_depends_on_namespace_and_scope() {
        let scope = Scope::new().value("acme");
        let id = ScopeId::new("production", &scope);
        assert_eq!(id, ScopeId::new("production", &scope.clone()));
        assert_ne!(id, ScopeId::new("staging", &scope));
        assert_ne!(id, ScopeId::new("production", &Scope::new()));
    }

    #[test]
    fn a_scope_id_is_read_from_its_text() {
        let id = ScopeId::new("production", &Scope::new());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("abc".parse::<ScopeId>(), Err(ParseScopeIdError));
    }
}
