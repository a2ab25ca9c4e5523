//! Reads the idempotency key that the client sends in `Idempotency-Key`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};
use sfv::{BareItem, Item, Parser};

use crate::request::headers;
use crate::settings::dialect::{Dialect, KeySyntax};

/// Reads the key of a request.
///
/// `Ok(None)` means that there is no key header. Anything else than exactly one valid key is an
/// error, because ignoring the key would leave the request unprotected. The error says what is
/// wrong with the key and does not contain the key.
pub(crate) fn parse<'a>(
    headers: &'a HeaderMap,
    dialect: &Dialect,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let lines = headers::values(headers, dialect.key_header_name());
    parse_lines(lines, dialect, dialect.syntax())
}

/// Reads the key of a request from a header that the endpoint names. The sender knows nothing of the
/// service, so quotes are never required.
pub(crate) fn parse_own<'a>(
    headers: &'a HeaderMap,
    name: &str,
    dialect: &Dialect,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let syntax = match dialect.syntax() {
        KeySyntax::StructuredString => KeySyntax::Lenient,
        syntax => syntax,
    };
    parse_lines(headers.get_all(name).iter(), dialect, syntax)
}

fn parse_lines<'a>(
    mut lines: impl Iterator<Item = &'a HeaderValue>,
    dialect: &Dialect,
    syntax: KeySyntax,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err("the header appears more than once");
    }
    let line = line.as_bytes().trim_ascii();
    // An escape at most doubles a byte. So a longer line can contain a valid key only if its
    // parameters are long, and long parameters are not read.
    if line.len()
        > dialect
            .max_key_bytes()
            .saturating_mul(2)
            .saturating_add(1024)
    {
        return Err("the key is too long");
    }
    let key = match syntax {
        KeySyntax::Raw => {
            Cow::Borrowed(std::str::from_utf8(line).map_err(|_| "the key is not valid UTF-8")?)
        }
        KeySyntax::Lenient if line.first() != Some(&b'"') => bare(line)?,
        KeySyntax::Lenient | KeySyntax::StructuredString => structured_string(line)?,
    };
    check(&key, dialect)?;
    Ok(Some(key))
}

/// Checks a key that an expression of the endpoint returned. It may have the characters that a key in a header of
/// the dialect can have: with [`KeySyntax::Raw`] those of a header value, otherwise those of a quoted string.
pub(crate) fn check_chosen(key: &str, dialect: &Dialect) -> Result<(), &'static str> {
    let fits = |byte: u8| match dialect.syntax() {
        KeySyntax::Raw => byte == b'\t' || !byte.is_ascii_control(),
        KeySyntax::Lenient | KeySyntax::StructuredString => matches!(byte, b' '..=b'~'),
    };
    if !key.bytes().all(fits) {
        return Err("the key contains a character that a key in a header cannot contain");
    }
    check(key, dialect)
}

/// Checks a key by the rules of the dialect. The error does not contain the key.
fn check(key: &str, dialect: &Dialect) -> Result<(), &'static str> {
    if key.is_empty() {
        return Err("the key is empty");
    }
    if key.len() > dialect.max_key_bytes() {
        return Err("the key is too long");
    }
    if key.len() < dialect.min_key_bytes() {
        return Err("the key is too short");
    }
    if !dialect.rule_allows(key) {
        return Err("this service does not allow the key");
    }
    Ok(())
}

/// Reads a key without quotes: visible ASCII, without commas, which would indicate a list, and
/// without quotes, which would indicate a truncated string.
fn bare(line: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    // No early exit, so that the compiler can vectorize the loop.
    let is_other = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b',');
    let has_others = line.iter().fold(false, |any, byte| any | is_other(*byte));
    match std::str::from_utf8(line) {
        Ok(key) if !has_others => Ok(Cow::Borrowed(key)),
        Ok(key) if key.contains('"') => Err("the quotes of the key do not match"),
        Ok(key) if key.contains(',') => Err("the header contains more than one key"),
        _ => Err("a key without quotes must consist of visible ASCII characters without spaces"),
    }
}

/// Reads an Item whose value is a String (RFC 9651, section 3.3.3). The parameters are ignored.
fn structured_string(line: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    const NOT_A_STRING: &str =
        "the header is not exactly one quoted string (RFC 9651, section 3.3.3)";
    let item: Item = Parser::new(line).parse().map_err(|_| NOT_A_STRING)?;
    match item.bare_item {
        BareItem::String(key) => Ok(Cow::Owned(key.into())),
        _ => Err(NOT_A_STRING),
    }
}

#[cfg(test)]
mod tests {
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
    fn a_key_is_read_according_to_its_syntax() {
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
    fn each_invalid_key_has_its_reason() {
        for (lines, reason) in [
            (&["a", "a"][..], "the header appears more than once"),
            (&[""], "the key is empty"),
            (&["\"\""], "the key is empty"),
            (&["a\""], "the quotes of the key do not match"),
            (&["a\",b"], "the quotes of the key do not match"),
            (&["a,b"], "the header contains more than one key"),
            (
                &["a b"],
                "a key without quotes must consist of visible ASCII characters without spaces",
            ),
            (
                &["é"],
                "a key without quotes must consist of visible ASCII characters without spaces",
            ),
            (
                &["\"a"],
                "the header is not exactly one quoted string (RFC 9651, section 3.3.3)",
            ),
            (
                &["\"a\", \"b\""],
                "the header is not exactly one quoted string (RFC 9651, section 3.3.3)",
            ),
        ] {
            assert_eq!(read(lines, &Dialect::default()), Err(reason), "{lines:?}");
        }
    }

    #[test]
    fn the_length_of_a_key_excludes_quotes_and_escapes() {
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
    fn a_key_rule_can_refuse_keys() {
        let dialect = Dialect::default().key_rule(|key| key != "test");
        assert_eq!(read(&["k"], &dialect), Ok(Some("k".to_owned())));
        let refused = Err("this service does not allow the key");
        assert_eq!(read(&["\"test\""], &dialect), refused);
    }

    #[test]
    fn a_chosen_key_has_the_characters_of_a_key_in_a_header() {
        let quoted = [Dialect::default(), Dialect::ietf()];
        let raw = Dialect::stripe();
        for (key, fits_quoted, fits_raw) in [
            ("a b,\"c\\~", true, true),
            ("größe", false, true),
            ("a\tb", false, true),
            ("a\nb", false, false),
            ("a\0", false, false),
            ("\u{7f}", false, false),
            ("", false, false),
        ] {
            for dialect in &quoted {
                assert_eq!(check_chosen(key, dialect).is_ok(), fits_quoted, "{key:?}");
            }
            assert_eq!(check_chosen(key, &raw).is_ok(), fits_raw, "{key:?}");
        }
    }

    /// The parameters could be arbitrarily long.
    #[test]
    fn a_header_longer_than_any_key_is_refused() {
        let dialect = Dialect::default().max_key_len(4);
        let line = |len: usize| format!("\"ab\";{}", "p".repeat(len - 5));
        assert!(read(&[&line(1032)], &dialect).is_ok());
        assert_eq!(read(&[&line(1033)], &dialect), Err("the key is too long"));
    }
}
