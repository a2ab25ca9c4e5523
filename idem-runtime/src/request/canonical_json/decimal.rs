//! Splits a number into its digits and its exponent, so that all spellings of a number are equal.

/// The value of a number: its digits as an integer, times ten to the power of the exponent. The digits
/// neither start nor end with a zero, so each value has one form. Zero has no digits.
pub(super) struct Decimal<'a> {
    pub(super) is_negative: bool,
    /// The digits before and after the decimal point.
    pub(super) digits: [&'a str; 2],
    pub(super) exponent: i64,
}

impl<'a> Decimal<'a> {
    /// The parts of a valid number. `None` if the exponent has more than 18 digits.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if whole.is_empty() && fraction.is_empty() {
            return Some(Self {
                is_negative: false,
                digits: ["", ""],
                exponent: 0,
            });
        }
        let exponent = self::exponent(exponent)?;
        Some(if fraction.is_empty() {
            let digits = whole.trim_end_matches('0');
            Self {
                is_negative,
                digits: [digits, ""],
                exponent: exponent + length(whole) - length(digits),
            }
        } else {
            let digits = match whole {
                "" => fraction.trim_start_matches('0'),
                _ => fraction,
            };
            Self {
                is_negative,
                digits: [whole, digits],
                exponent: exponent - length(fraction),
            }
        })
    }
}

/// Reads an exponent of at most 18 digits. A body is shorter than 4 GiB, so adding the length of its digits
/// does not overflow.
fn exponent(text: &str) -> Option<i64> {
    let digits = text.trim_start_matches(['+', '-']).trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let exponent: i64 = digits.parse().ok().filter(|_| digits.len() <= 18)?;
    Some(if text.starts_with('-') {
        -exponent
    } else {
        exponent
    })
}

fn length(digits: &str) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::value;

    #[test]
    fn numbers_are_compared_by_their_exact_value() {
        let form = |text: &str| value(text.as_bytes()).expect("a number");
        for equal in [
            &["1", "1.0", "1e0", "10e-1", "0.1E+1", "1.000e00"][..],
            &["100", "1e2", "1E+2", "0.001e5", "1000e-1"],
            &[
                "0",
                "-0",
                "0.00",
                "0e9",
                "-0.0e-9",
                "0e99999999999999999999",
            ],
            &["-12.5", "-1.25e1", "-125e-1", "-12.50"],
            &["0.005", "5e-3", "0.5e-2", "0.0050"],
            &["100.001", "100001e-3"],
            &["1e00000000000000000000002", "100"],
        ] {
            for other in equal {
                assert_eq!(form(equal[0]), form(other), "{} and {other}", equal[0]);
            }
        }
        let different = [
            "0",
            "1",
            "-1",
            "10",
            "0.1",
            "1.01",
            "101",
            "1001",
            "10.01",
            "9007199254740992",
            "9007199254740993",
            "0.1000000000000000055511151231257827",
            "1e400",
            "1e401",
            "1e-400",
            "1e999999999999999999",
            "1e1000000000000000000",
            "1e2000000000000000000",
            "\"1\"",
            "[1]",
        ];
        for (at, one) in different.iter().enumerate() {
            for other in &different[at + 1..] {
                assert_ne!(form(one), form(other), "{one} and {other}");
            }
        }
    }
}
