//! Checks that the spelling of a key does not change the key.

use http::{HeaderMap, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::request::key::parse;
use crate::settings::dialect::{Dialect, KeySyntax};

fn read(line: &[u8], syntax: KeySyntax) -> Result<String, &'static str> {
    let dialect = Dialect::default().key_syntax(syntax);
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_bytes(line).expect("a header value");
    headers.insert("idempotency-key", value);
    parse(&headers, &dialect).map(|key| key.expect("the header exists").into_owned())
}

fn quoted(key: &str) -> Vec<u8> {
    let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"").into_bytes()
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn a_key_is_the_same_with_and_without_quotes(key in "[!#-+\\--~]{1,255}") {
        prop_assert_eq!(read(key.as_bytes(), KeySyntax::Lenient), Ok(key.clone()));
        for syntax in [KeySyntax::Lenient, KeySyntax::StructuredString] {
            prop_assert_eq!(read(&quoted(&key), syntax), Ok(key.clone()));
        }
        let padded = format!(" {key}\t");
        prop_assert_eq!(read(padded.as_bytes(), KeySyntax::Lenient), Ok(key.clone()));
        prop_assert!(read(key.as_bytes(), KeySyntax::StructuredString).is_err());
    }

    #[test]
    fn a_quoted_key_holds_any_printable_text(key in "[ -~]{1,255}", parameter in "(;[a-z]{1,5}(=[0-9]{1,5})?)?") {
        let line = [&quoted(&key), parameter.as_bytes()].concat();
        for syntax in [KeySyntax::Lenient, KeySyntax::StructuredString] {
            prop_assert_eq!(read(&line, syntax), Ok(key.clone()));
        }
    }

    #[test]
    fn a_key_over_the_limit_is_refused_in_every_syntax(key in "[a-z]{256,2000}") {
        for syntax in [KeySyntax::Lenient, KeySyntax::StructuredString, KeySyntax::Raw] {
            prop_assert!(read(key.as_bytes(), syntax).is_err());
            prop_assert!(read(&quoted(&key), syntax).is_err());
        }
    }

    /// Each header value is one key or an error, and never an empty key.
    #[test]
    fn a_header_gives_a_key_or_an_error(line in vec(prop_oneof![Just(b'\t'), 0x20..0x7f_u8, 0x80..=0xff_u8], 0..300)) {
        for syntax in [KeySyntax::Lenient, KeySyntax::StructuredString, KeySyntax::Raw] {
            if let Ok(key) = read(&line, syntax) {
                prop_assert!(!key.is_empty() && key.len() <= 255, "{}", key);
            }
        }
    }
}
