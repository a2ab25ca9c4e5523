//! The idempotency key: what the client sends in `Idempotency-Key`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Item, Parser};

use crate::settings::dialect::{Dialect, KeySyntax};

/// Whether there is such a header. Measured: a request has few headers, and comparing them all takes
/// less time than hashing one name.
pub(crate) fn is_there(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|other| other == name)
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
    // No early exit, so that the compiler can vectorize the loop.
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(lines: &[&str], dialect: &Dialect) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = HeaderValue::from_bytes(line.as_bytes()).expect("a header value");
            headers.append(dialect.key_header_name(), line);
        }
        parse(&headers, dialect).map(|key| key.map(Cow::into_owned))
    }

    #[test]
    fn a_key_is_what_its_client_meant() {
        let raw = Dialect::default().key_syntax(KeySyntax::Raw);
        let strict = Dialect::default().key_syntax(KeySyntax::StructuredString);
        for (line, lenient_key, strict_key, raw_key) in [
            ("k-1", Some("k-1"), None, Some("k-1")),
            ("\"k-1\"", Some("k-1"), Some("k-1"), Some("\"k-1\"")),
            (
                " \"k,\\\"1\" ",
                Some("k,\"1"),
                Some("k,\"1"),
                Some("\"k,\\\"1\""),
            ),
            ("\"k\";p=1", Some("k"), Some("k"), Some("\"k\";p=1")),
            ("k;p=1", Some("k;p=1"), None, Some("k;p=1")),
            ("a b", None, None, Some("a b")),
            ("a,b", None, None, Some("a,b")),
            ("größe", None, None, Some("größe")),
            (":YQ==:", Some(":YQ==:"), None, Some(":YQ==:")),
        ] {
            for (dialect, key) in [
                (&Dialect::default(), lenient_key),
                (&strict, strict_key),
                (&raw, raw_key),
            ] {
                let read = read(&[line], dialect);
                assert_eq!(read.ok().flatten().as_deref(), key, "{line}: {dialect:?}");
            }
        }
        assert_eq!(read(&[], &strict), Ok(None));
    }

    #[test]
    fn what_is_wrong_with_a_key_is_told() {
        for (lines, reason) in [
            (&["a", "a"][..], "the header is there more than once"),
            (&[""], "the key is empty"),
            (&["\"\""], "the key is empty"),
            (&["a\""], "its quotes do not match"),
            (&["a\",b"], "its quotes do not match"),
            (&["a,b"], "there is more than one key in the header"),
            (
                &["a b"],
                "an unquoted key is visible ASCII characters without spaces",
            ),
            (
                &["é"],
                "an unquoted key is visible ASCII characters without spaces",
            ),
            (
                &["\"a"],
                "it is not one quoted string (RFC 9651, section 3.3.3)",
            ),
            (
                &["\"a\", \"b\""],
                "it is not one quoted string (RFC 9651, section 3.3.3)",
            ),
        ] {
            assert_eq!(read(lines, &Dialect::default()), Err(reason), "{lines:?}");
        }
    }

    #[test]
    fn a_key_is_measured_without_its_quotes_and_escapes() {
        let dialect = Dialect::default().min_key_len(2).max_key_len(4);
        for line in ["ab", "abcd", "\"ab\"", "\"a\\\"b\\\\\""] {
            assert!(matches!(read(&[line], &dialect), Ok(Some(_))), "{line}");
        }
        for line in ["a", "\"a\"", "\"\\\"\""] {
            assert_eq!(read(&[line], &dialect), Err("the key is too short"));
        }
        for line in ["abcde", "\"abcde\""] {
            assert_eq!(read(&[line], &dialect), Err("the key is too long"));
        }
    }

    #[test]
    fn a_service_can_refuse_keys_by_a_rule_of_its_own() {
        let dialect = Dialect::default().key_rule(|key| key != "test");
        assert_eq!(read(&["k"], &dialect), Ok(Some("k".to_owned())));
        let refused = Err("the key breaks a rule of this service");
        assert_eq!(read(&["\"test\""], &dialect), refused);
    }

    /// Its parameters could go on for ever.
    #[test]
    fn no_more_of_a_line_is_read_than_a_key_can_take() {
        let dialect = Dialect::default().max_key_len(4);
        let line = |len: usize| format!("\"ab\";{}", "p".repeat(len - 5));
        assert!(read(&[&line(1032)], &dialect).is_ok());
        assert_eq!(read(&[&line(1033)], &dialect), Err("the key is too long"));
    }
}
