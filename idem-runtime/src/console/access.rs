//! What an operator may do.

/// The rights of the sender of a request in the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "console")]
pub enum Access {
    /// Nothing: every request gets 403.
    Denied,
    /// See records and responses.
    ReadOnly,
    /// Also resolve and forget keys.
    Full,
}

impl Access {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
        }
    }
}
