//! The names that a service may give to the table of a store.

/// The longest name, in bytes. PostgreSQL cuts names at 63 bytes, and the names of the indexes are longer
/// than the name of their table.
pub(super) const LONGEST: usize = 50;

/// Whether the name has only letters, digits and underscores, begins with no digit, and is not too long.
pub(super) fn is_valid(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= LONGEST
        && name.bytes().all(is_allowed)
        && name
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit())
}
