//! The idempotency key: what the client sends in `Idempotency-Key`.

use std::borrow::Cow;
use std::fmt;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use http::{HeaderMap, Request};
use sfv::{BareItem, Item, Parser};

use crate::dialect::{Dialect, KeySyntax};
use crate::idempotency::Idempotency;
use crate::problem::Problem;

/// The key of this request, as the client meant it: unquoted and unescaped.
///
/// An extractor for logs and for calls to other services. `IdempotencyKey` refuses a request
/// without a key, `Option<IdempotencyKey>` gives `None` for one; both refuse a key that the
/// [`Dialect`] of the installed [`Idempotency`] does not take.
///
/// `Debug` does not show the key, since `#[instrument]` and panic messages write it to logs that
/// nobody chose.
///
/// ```
/// use idem_runtime::IdempotencyKey;
///
/// async fn charge(key: Option<IdempotencyKey>) -> String {
///     key.map_or_else(|| "no key".into(), |key| format!("key of {} bytes", key.as_str().len()))
/// }
/// # let _ = charge;
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// The key itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

impl AsRef<str> for IdempotencyKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<IdempotencyKey> for String {
    fn from(key: IdempotencyKey) -> Self {
        key.0.into()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        <Self as OptionalFromRequestParts<S>>::from_request_parts(parts, state)
            .await?
            .ok_or_else(Problem::key_missing)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        let idem = Idempotency::of(&parts.extensions);
        match parse(&parts.headers, idem.dialect()) {
            Ok(key) => Ok(key.map(|key| Self(key.into()))),
            Err(reason) => Err(Problem::key_invalid(reason)),
        }
    }
}

/// Whether a request is about a key: it has one, where the service has it, and a method that can
/// change something (RFC 9110, section 9.2.1).
pub(crate) fn concerns<B>(request: &Request<B>, idem: Option<&Idempotency>) -> bool {
    let headers = request.headers();
    !request.method().is_safe()
        && idem.map_or_else(
            || headers.contains_key(Dialect::DEFAULT_KEY_HEADER),
            |idem| idem.has_key(headers),
        )
}

/// Reads the key of a request.
///
/// `Ok(None)` means that there is no key header at all. Everything else that is not one good key is
/// an error, since a key that is ignored protects nothing. The error says what is wrong with the
/// key and does not contain it.
pub(crate) fn parse<'a>(
    headers: &'a HeaderMap,
    dialect: &Dialect,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let mut lines = headers.get_all(dialect.key_header_name()).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err("the header is there more than once");
    }
    let line = line.as_bytes().trim_ascii();
    // An escape doubles a byte at most, so a line longer than this holds no key that fits, unless
    // by its parameters, which are not read to any length.
    if line.len()
        > dialect
            .max_key_bytes()
            .saturating_mul(2)
            .saturating_add(1024)
    {
        return Err("the key is too long");
    }
    let key = match dialect.syntax() {
        KeySyntax::Raw => {
            Cow::Borrowed(std::str::from_utf8(line).map_err(|_| "the key is not text")?)
        }
        KeySyntax::Lenient if line.first() != Some(&b'"') => bare(line)?,
        KeySyntax::Lenient | KeySyntax::StructuredString => structured_string(line)?,
    };
    if key.is_empty() {
        return Err("the key is empty");
    }
    if key.len() > dialect.max_key_bytes() {
        return Err("the key is too long");
    }
    if key.len() < dialect.min_key_bytes() {
        return Err("the key is too short");
    }
    if !dialect.rule_allows(&key) {
        return Err("the key breaks a rule of this service");
    }
    Ok(Some(key))
}

/// A key without quotes: visible ASCII, and nothing that a list or a cut-off string would hold.
fn bare(line: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    // Looks at every byte and has no way out, for a loop of that kind is done for many bytes at once.
    let is_other = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b',');
    let has_others = line.iter().fold(false, |any, byte| any | is_other(*byte));
    match std::str::from_utf8(line) {
        Ok(key) if !has_others => Ok(Cow::Borrowed(key)),
        Ok(key) if key.contains('"') => Err("its quotes do not match"),
        Ok(key) if key.contains(',') => Err("there is more than one key in the header"),
        _ => Err("an unquoted key is visible ASCII characters without spaces"),
    }
}

/// An Item whose value is a String (RFC 9651, section 3.3.3). Its parameters mean nothing here.
fn structured_string(line: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    const NOT_A_STRING: &str = "it is not one quoted string (RFC 9651, section 3.3.3)";
    let item: Item = Parser::new(line).parse().map_err(|_| NOT_A_STRING)?;
    match item.bare_item {
        BareItem::String(key) => Ok(Cow::Owned(key.into())),
        _ => Err(NOT_A_STRING),
    }
}
