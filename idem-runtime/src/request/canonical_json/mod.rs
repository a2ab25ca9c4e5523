//! Writes the canonical form of a JSON value, for fingerprints. All spellings of a value have the
//! same form.
//!
//! White space, the order of members, escapes in strings and the spelling of numbers do not change the
//! form: `1`, `1.0` and `10e-1` are equal. Numbers are compared exactly, so that rounding to a double
//! cannot make two amounts equal. A body has no canonical form if it is not exactly one JSON value,
//! repeats a member, or is nested too deeply. The caller then uses the bytes.

mod decimal;
mod index;
mod kind;
mod parser;
mod pointer;
mod write;

pub(crate) use self::index::Document;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn value(body: &[u8]) -> Option<Vec<u8>> {
        let mut form = Vec::new();
        Document::parse(body)?.write(&mut |bytes| form.extend_from_slice(bytes));
        Some(form)
    }
}
