//! Checks that two spellings of one JSON value have the same form, and that two values have
//! different forms.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::request::canonical_json::Document;

fn value(input: &[u8]) -> Option<Vec<u8>> {
    let mut form = Vec::new();
    Document::parse(input)?.write(&mut |bytes: &[u8]| form.extend_from_slice(bytes));
    Some(form)
}

fn values_at(input: &[u8], pointers: &[&str]) -> Option<Vec<u8>> {
    let mut form = Vec::new();
    Document::parse(input)?.write_at(pointers, &mut |bytes: &[u8]| form.extend_from_slice(bytes));
    Some(form)
}

/// A value before it is written as text.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Bare(&'static str),
    Number(Number),
    Text(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

/// An integer that is zero or does not end with a zero, times ten to the power of the exponent.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Number {
    digits: i64,
    exponent: i32,
}

impl Number {
    fn new(digits: i64, exponent: i32) -> Self {
        match digits {
            0 => Self {
                digits,
                exponent: 0,
            },
            _ if digits % 10 == 0 => Self::new(digits / 10, exponent + 1),
            _ => Self { digits, exponent },
        }
    }

    /// Writes the number with its decimal point `shift` places to the left.
    fn spell(self, shift: usize, out: &mut String) {
        let sign = if self.digits < 0 { "-" } else { "" };
        let digits = format!("{:0width$}", self.digits.unsigned_abs(), width = shift + 1);
        let (whole, fraction) = digits.split_at(digits.len() - shift);
        let point = if fraction.is_empty() { "" } else { "." };
        write!(out, "{sign}{whole}{point}{fraction}").expect("written");
        let exponent = i64::from(self.exponent) + i64::try_from(shift).expect("small");
        if exponent != 0 || shift == 1 {
            write!(out, "e{exponent}").expect("written");
        }
    }
}

fn json() -> impl Strategy<Value = Json> {
    let bare = select(vec!["true", "false", "null"]);
    let digits = prop_oneof![-20..20i64, Just(9_007_199_254_740_993), any::<i64>()];
    let number = (digits, -3..4).prop_map(|(digits, exponent)| Number::new(digits, exponent));
    let leaf = prop_oneof![
        bare.prop_map(Json::Bare),
        number.prop_map(Json::Number),
        text().prop_map(Json::Text)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::Array),
            btree_map(text(), inner, 0..4).prop_map(Json::Object),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    "[a-c/\"\\\\\né😀]{0,3}"
}

/// Writes a value as text. Takes each choice of spelling from `choices` in turn.
fn spell(json: &Json, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
    out.push_str(space(choices));
    match json {
        Json::Bare(text) => out.push_str(text),
        Json::Number(number) => {
            let shift = usize::from(choices.next().unwrap_or_default() % 8);
            number.spell(shift, out);
        }
        Json::Text(text) => spell_text(text, choices, out),
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                spell(item, choices, out);
            }
            out.push_str(space(choices));
            out.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            let by = usize::from(choices.next().unwrap_or_default());
            let by = by % members.len().max(1);
            members.rotate_left(by);
            out.push('{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                out.push_str(space(choices));
                spell_text(name, choices, out);
                out.push_str(space(choices));
                out.push(':');
                spell(value, choices, out);
            }
            out.push_str(space(choices));
            out.push('}');
        }
    }
    out.push_str(space(choices));
}

fn space(choices: &mut impl Iterator<Item = u8>) -> &'static str {
    ["", "", " ", "\t\r\n"][usize::from(choices.next().unwrap_or_default() % 4)]
}

fn spell_text(text: &str, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        let is_escaped = choices.next().unwrap_or_default() % 2 == 1;
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '/' if is_escaped => out.push_str("\\/"),
            '\n' if !is_escaped => out.push_str("\\n"),
            _ if is_escaped || letter.is_control() => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("written");
                }
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

/// The text of a number. The few digits and exponents make equal values likely.
fn number_text() -> impl Strategy<Value = String> {
    let exponent = prop_oneof!["", "[eE][+-]?0{0,2}[0-3]", "[eE][+-]?[0-9]{1,2}"];
    ("-?(0|[19][01]{0,3})(\\.[01]{1,4})?", exponent)
        .prop_map(|(digits, exponent)| digits + &exponent)
}

/// The value of a number times 10 to the power of 110, as an integer. Found in another way than by the library:
/// by shifting the point instead of moving zeros into the exponent.
fn shifted(text: &str) -> String {
    let (sign, text) = text
        .strip_prefix('-')
        .map_or(("", text), |text| ("-", text));
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let exponent: i32 = exponent.parse().expect("a small exponent");
    let places = i32::try_from(fraction.len()).expect("a short fraction");
    let zeros = usize::try_from(110 + exponent - places).expect("the value is not too small");
    let all = format!("{whole}{fraction}{}", "0".repeat(zeros));
    match all.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => format!("{sign}{digits}"),
    }
}

fn spelled(json: &Json, choices: Vec<u8>) -> String {
    let mut text = String::new();
    spell(
        json,
        &mut choices.into_iter().chain(std::iter::repeat(0)),
        &mut text,
    );
    text
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn all_spellings_of_a_value_have_the_same_form(json in json(), choices in vec(any::<u8>(), 64)) {
        let [plain, fancy] = [spelled(&json, Vec::new()), spelled(&json, choices)];
        let form = value(plain.as_bytes());
        prop_assert!(form.is_some(), "{} has no form", plain);
        prop_assert_eq!(value(fancy.as_bytes()), form.clone(), "{} and {}", plain, fancy);
        prop_assert_eq!(values_at(fancy.as_bytes(), &[""]), form);
    }

    #[test]
    fn different_values_have_different_forms(one in json(), other in json(), wrap in 0_usize..3) {
        let wrap = |json: &Json| match wrap {
            0 => json.clone(),
            1 => Json::Array(vec![json.clone()]),
            _ => Json::Object([("a".to_owned(), json.clone())].into()),
        };
        let text = |json: &Json| spelled(&wrap(json), Vec::new());
        let [first, second] = [text(&one), text(&other)];
        prop_assert_eq!(value(first.as_bytes()) == value(second.as_bytes()), one == other);
        // A wrapped value differs from the bare value.
        let bare = spelled(&one, Vec::new());
        let array = spelled(&Json::Array(vec![one]), Vec::new());
        prop_assert_ne!(value(bare.as_bytes()), value(array.as_bytes()));
    }

    #[test]
    fn two_numbers_have_the_same_form_if_and_only_if_they_are_equal(one in number_text(), other in number_text()) {
        let is_equal = shifted(&one) == shifted(&other);
        let [first, second] = [&one, &other].map(|text| value(text.as_bytes()));
        prop_assert!(first.is_some() && second.is_some(), "{} and {}", one, other);
        prop_assert_eq!(first == second, is_equal, "{} and {}", one, other);
    }

    /// A truncated text has no form. The value is in an array, because a truncated number is a
    /// number.
    #[test]
    fn a_truncated_value_has_no_form(json in json()) {
        let text = spelled(&Json::Array(vec![json]), Vec::new());
        for len in 0..text.len() {
            prop_assert_eq!(value(&text.as_bytes()[..len]), None);
        }
    }
}
