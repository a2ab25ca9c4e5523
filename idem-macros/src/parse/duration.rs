//! Reads durations such as `"24h"` and `"1h30m"`.

use syn::{Expr, Lit};

const UNITS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

const LONGEST: u64 = 365 * 24 * 60 * 60 * 1000;

const HOW: &str = "write a number and `s`, `m`, `h` or `d`, such as `\"90s\"` or `\"24h\"`";

/// Returns the milliseconds of `value`, the duration in `argument`. Messages show `example`.
pub(crate) fn from_expr(argument: &str, example: &str, value: &Expr) -> syn::Result<u64> {
    let problem = match value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => match read(&text.value()) {
                Ok(millis) => return Ok(millis),
                Err(problem) => problem,
            },
            Lit::Int(number) if unit(number.suffix()).is_some() => {
                let (digits, unit) = (number.base10_digits(), number.suffix());
                format!("a duration needs quotes; write `\"{digits}{unit}\"`")
            }
            Lit::Int(number) if number.suffix().is_empty() => match number.base10_digits() {
                "0" => zero("0"),
                digits => no_unit(digits),
            },
            _ => format!("`{argument}` takes a duration in quotes; write `\"{example}\"`"),
        },
        _ => format!("`{argument}` takes a duration in quotes; write `\"{example}\"`"),
    };
    Err(syn::Error::new_spanned(value, problem))
}

fn unit(name: &str) -> Option<u64> {
    UNITS
        .iter()
        .find(|(unit, _)| *unit == name)
        .map(|(_, millis)| *millis)
}

fn zero(text: &str) -> String {
    format!("`{text}` is zero; a duration must be positive, such as `\"90s\"` or `\"24h\"`")
}

fn no_unit(digits: &str) -> String {
    format!(
        "`{digits}` has no unit; write `\"{digits}s\"` for seconds or `\"{digits}h\"` for hours"
    )
}

/// Returns the milliseconds of `text`, or a message that says what to write instead.
fn read(text: &str) -> Result<u64, String> {
    let cannot = || format!("cannot read `{text}` as a duration; {HOW}");
    if text.trim().is_empty() {
        return Err(format!("a duration cannot be empty; {HOW}"));
    }
    if text.starts_with(['-', '−']) {
        let positive = text.trim_start_matches(['-', '−']);
        return Err(format!(
            "`{text}` is negative; a duration must be positive, such as `\"{positive}\"`"
        ));
    }
    if text.bytes().all(|byte| byte == b'0') {
        return Err(zero(text));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_unit(text));
    }
    let tidy: String = text.to_lowercase().split_whitespace().collect();
    if tidy != text && read(&tidy).is_ok() {
        return Err(format!(
            "cannot read `{text}` as a duration; write `\"{tidy}\"`"
        ));
    }
    if text.contains('.') {
        return Err(format!(
            "`{text}` has a fraction; combine whole numbers instead, such as `\"1h30m\"`"
        ));
    }

    let too_long = || format!("`{text}` is longer than a year; the maximum is `\"365d\"`");
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (name, after) = after.split_at(letters);
        let Some(millis) = unit(name) else {
            return Err(cannot());
        };
        if number.is_empty() {
            return Err(cannot());
        }
        if millis >= smallest {
            return Err(format!(
                "the units of `{text}` are out of order; write each unit once, the largest first, such as `\"1h30m\"`"
            ));
        }
        smallest = millis;
        total = number
            .parse()
            .ok()
            .and_then(|number: u64| number.checked_mul(millis))
            .and_then(|part| total.checked_add(part))
            .ok_or_else(too_long)?;
        rest = after;
    }
    match total {
        0 => Err(zero(text)),
        _ if total > LONGEST => Err(too_long()),
        _ => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_and_their_combinations_are_read() {
        for (text, millis) in [
            ("1ms", 1),
            ("500ms", 500),
            ("90s", 90_000),
            ("15m", 900_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("365d", LONGEST),
            ("0h5m", 300_000),
        ] {
            assert_eq!(read(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn wrong_durations_are_explained() {
        for (text, words) in [
            ("", "cannot be empty"),
            (" ", "cannot be empty"),
            ("24", "write `\"24s\"`"),
            ("-1h", "negative"),
            ("0s", "is zero"),
            ("0", "is zero"),
            ("1.5h", "`\"1h30m\"`"),
            ("24 hourz", "cannot read `24 hourz`"),
            ("24H", "write `\"24h\"`"),
            ("1h 30m", "write `\"1h30m\"`"),
            ("h", "cannot read"),
            ("1y", "cannot read"),
            ("1h30", "cannot read"),
            ("1µs", "cannot read"),
            ("30m1h", "out of order"),
            ("1h1h", "out of order"),
            ("366d", "longer than a year"),
            ("365d1ms", "longer than a year"),
            ("99999999999999999999h", "longer than a year"),
            ("18446744073709551615d", "longer than a year"),
        ] {
            let problem = read(text).expect_err(text);
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }
}
