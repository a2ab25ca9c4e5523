//! The keys that seal and open records.

use std::fmt;
use std::str::FromStr;

use zeroize::{Zeroize, Zeroizing};

use crate::request::hex;

/// A key of 256 bits. It is erased from memory when it is dropped, and `Debug` does not show it.
///
/// Use bytes from a random generator for cryptography, not a password. `openssl rand -hex 32` prints a key that
/// [`from_env`](Self::from_env) and `FromStr` read. A copy that the caller keeps is not erased.
#[cfg(feature = "seal")]
pub struct SealingKey(Box<Zeroizing<[u8; 32]>>);

/// Why a key or a list of keys cannot be read. The error does not contain a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[cfg(feature = "seal")]
pub enum SealingKeyError {
    /// The environment variable is not set, or is not text.
    #[error("the environment variable `{0}` is not set, or is not text")]
    NotSet(String),
    /// The text is not a key.
    #[error("a key is 64 hexadecimal digits; `openssl rand -hex 32` prints one")]
    Malformed,
    /// The list has no key.
    #[error("there is no sealing key; write `ID:KEY`, a number and 64 hexadecimal digits")]
    NoKeys,
    /// The entry of the list with this number, counted from 1, is not a key with its id.
    #[error("sealing key number {0} is not `ID:KEY`, a number and 64 hexadecimal digits")]
    MalformedEntry(usize),
    /// Two keys of the list have the same id.
    #[error("two sealing keys have the id {0}")]
    SameId(u32),
}

impl SealingKey {
    /// Reads a key of 64 hexadecimal digits from an environment variable.
    ///
    /// # Errors
    ///
    /// [`SealingKeyError`] when the variable is not set or contains something else.
    pub fn from_env(name: &str) -> Result<Self, SealingKeyError> {
        let text = std::env::var(name).map_err(|_| SealingKeyError::NotSet(name.to_owned()))?;
        Zeroizing::new(text).trim().parse()
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for SealingKey {
    fn from(mut bytes: [u8; 32]) -> Self {
        let key = Self(Box::new(Zeroizing::new(bytes)));
        bytes.zeroize();
        key
    }
}

/// Reads 64 hexadecimal digits of either case.
impl FromStr for SealingKey {
    type Err = SealingKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::read::<32>(text.as_bytes())
            .map(Self::from)
            .ok_or(SealingKeyError::Malformed)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(hidden)")
    }
}

/// The keys of a [`Sealed`](super::Sealed) store: one *primary* key that seals new records, and other keys that
/// only open records.
///
/// Each key has an id, which is stored in the clear with each record. Never use an id again for another key.
///
/// # Rotation without downtime
///
/// 1. Create a key with a new id, and add it to every process with [`also`](Self::also). Deploy.
/// 2. Make the new key the primary key, and keep the old key with [`also`](Self::also). Deploy.
/// 3. Remove the old key when the longest `ttl` has passed since step 2.
///
/// A process without the key of a record refuses retries of that record with 503, and the handler does not run. So a
/// wrong order of the steps interrupts retries, but no handler runs twice.
///
/// ```
/// use idem_runtime::store::Keys;
///
/// # let (first, second) = ([1; 32], [2; 32]);
/// let step_1 = Keys::new().primary(1, first).also(2, second);
/// let step_2 = Keys::new().primary(2, second).also(1, first);
/// let step_3 = Keys::new().primary(2, second);
/// # let _ = (step_1, step_2, step_3);
/// ```
///
/// # From the environment
///
/// `FromStr` and [`from_env`](Self::from_env) read a list of `ID:KEY`, a decimal number and 64 hexadecimal digits, with
/// white space between the entries. The first key is the primary key. The program `idem` reads the same list, so a
/// rotation changes only the configuration:
///
/// ```
/// use idem_runtime::store::Keys;
///
/// # let (first, second) = ("01".repeat(32), "02".repeat(32));
/// // The second step of the rotation above.
/// let keys: Keys = format!("2:{second} 1:{first}").parse()?;
/// assert_eq!(format!("{keys:?}"), "Keys { ids: [2, 1], .. }");
/// # Ok::<(), idem_runtime::store::SealingKeyError>(())
/// ```
#[must_use]
#[cfg(feature = "seal")]
pub struct Keys {
    /// Sorted by use: the primary key is the first when `has_primary`.
    keys: Vec<(u32, SealingKey)>,
    has_primary: bool,
}

impl Keys {
    /// Returns a list without keys. Add the primary key with [`primary`](Self::primary).
    #[expect(
        clippy::new_without_default,
        reason = "keys without a primary key are of no use"
    )]
    pub fn new() -> Self {
        Self {
            keys: Vec::new(),
            has_primary: false,
        }
    }

    /// Adds the key that seals new records. It opens records too.
    ///
    /// # Panics
    ///
    /// When there is a primary key already, or another key with this id.
    pub fn primary(mut self, id: u32, key: impl Into<SealingKey>) -> Self {
        assert!(!self.has_primary, "there is a primary sealing key already");
        self = self.also(id, key);
        let last = self.keys.len() - 1;
        self.keys.swap(0, last);
        self.has_primary = true;
        self
    }

    /// Adds a key that only opens records.
    ///
    /// # Panics
    ///
    /// When there is another key with this id.
    pub fn also(mut self, id: u32, key: impl Into<SealingKey>) -> Self {
        assert!(self.get(id).is_none(), "two sealing keys have the id {id}");
        self.keys.push((id, key.into()));
        self
    }

    /// Reads a list of keys from an environment variable, such as `2:KEY 1:KEY` with 64 hexadecimal digits for each
    /// `KEY`. The first key is the primary key.
    ///
    /// # Errors
    ///
    /// [`SealingKeyError`] when the variable is not set or contains something else.
    pub fn from_env(name: &str) -> Result<Self, SealingKeyError> {
        let text = std::env::var(name).map_err(|_| SealingKeyError::NotSet(name.to_owned()))?;
        Zeroizing::new(text).parse()
    }

    /// The primary key, if there is one.
    pub(super) fn first(&self) -> Option<(u32, &SealingKey)> {
        let (id, key) = self.keys.first().filter(|_| self.has_primary)?;
        Some((*id, key))
    }

    pub(super) fn get(&self, id: u32) -> Option<&SealingKey> {
        self.keys.iter().find(|key| key.0 == id).map(|key| &key.1)
    }
}

/// Reads a list of `ID:KEY` with white space between the entries, such as one entry in each line.
impl FromStr for Keys {
    type Err = SealingKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut keys = Self::new();
        for (number, entry) in (1..).zip(text.split_whitespace()) {
            let wrong = SealingKeyError::MalformedEntry(number);
            let (id, key) = entry.split_once(':').ok_or(wrong.clone())?;
            let id = id.parse().map_err(|_| wrong.clone())?;
            let key: SealingKey = key.parse().map_err(|_| wrong)?;
            if keys.get(id).is_some() {
                return Err(SealingKeyError::SameId(id));
            }
            keys = if number == 1 {
                keys.primary(id, key)
            } else {
                keys.also(id, key)
            };
        }
        match keys.first() {
            Some(_) => Ok(keys),
            None => Err(SealingKeyError::NoKeys),
        }
    }
}

/// Shows the ids of the keys, with the primary key first.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.0).collect();
        f.debug_struct("Keys")
            .field("ids", &ids)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_hexadecimal_digits() {
        let key: SealingKey = "0a".repeat(32).parse().expect("a key");
        assert_eq!(key.as_bytes(), &[10; 32]);
        for text in [String::new(), "0a".repeat(31), "0g".repeat(32)] {
            let refused = text.parse::<SealingKey>();
            assert_eq!(refused.err(), Some(SealingKeyError::Malformed));
        }
        let refused = SealingKey::from_env("IDEM_TEST_NO_SUCH_KEY").err();
        let expected = SealingKeyError::NotSet("IDEM_TEST_NO_SUCH_KEY".into());
        assert_eq!(refused, Some(expected));
    }

    #[test]
    fn a_list_of_keys_begins_with_the_primary_key() {
        let (one, two) = ("0a".repeat(32), "0B".repeat(32));
        for text in [
            format!("2:{two} 1:{one}"),
            format!("\n2:{two}\r\n\t1:{one}\n"),
        ] {
            let keys: Keys = text.parse().expect("two keys");
            assert_eq!(format!("{keys:?}"), "Keys { ids: [2, 1], .. }");
            assert_eq!(keys.first().map(|(id, _)| id), Some(2));
            assert_eq!(keys.get(1).expect("the other key").as_bytes(), &[10; 32]);
        }
        for (text, error) in [
            (" \n".to_owned(), SealingKeyError::NoKeys),
            (one.clone(), SealingKeyError::MalformedEntry(1)),
            (format!("1:{one} 2:"), SealingKeyError::MalformedEntry(2)),
            (format!("-1:{one}"), SealingKeyError::MalformedEntry(1)),
            (
                format!("4294967296:{one}"),
                SealingKeyError::MalformedEntry(1),
            ),
            (format!("1:{one} 1:{two}"), SealingKeyError::SameId(1)),
        ] {
            assert_eq!(text.parse::<Keys>().err(), Some(error));
        }
        let refused = Keys::from_env("IDEM_TEST_NO_SUCH_KEYS").err();
        let expected = SealingKeyError::NotSet("IDEM_TEST_NO_SUCH_KEYS".into());
        assert_eq!(refused, Some(expected));
    }

    #[test]
    fn debug_output_contains_ids_but_no_key() {
        let keys = Keys::new().also(1, [77; 32]).primary(2, [78; 32]);
        assert_eq!(format!("{keys:?}"), "Keys { ids: [2, 1], .. }");
        assert_eq!(format!("{:?}", keys.keys[0].1), "SealingKey(hidden)");
    }

    #[test]
    #[should_panic(expected = "two sealing keys have the id 1")]
    fn an_id_has_one_key() {
        let _ = Keys::new().primary(1, [1; 32]).also(1, [2; 32]);
    }

    #[test]
    #[should_panic(expected = "there is a primary sealing key already")]
    fn there_is_one_primary_key() {
        let _ = Keys::new().primary(1, [1; 32]).primary(2, [2; 32]);
    }
}
