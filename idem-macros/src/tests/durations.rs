//! Property tests of durations.
//!
//! A failure prints its seed and its smallest case. `IDEM_SEED=7` repeats the cases of that seed.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use syn::{Expr, ExprLit, Lit, LitStr};

use crate::parse::duration::from_expr;

fn read(text: &str) -> Result<u64, String> {
    let value = Expr::Lit(ExprLit {
        attrs: Vec::new(),
        lit: Lit::Str(LitStr::new(text, proc_macro2::Span::call_site())),
    });
    from_expr("ttl", "24h", &value).map_err(|error| error.to_string())
}

fn config() -> Config {
    let given = std::env::var("IDEM_SEED").map(|seed| seed.parse().expect("a number"));
    let seed = given.unwrap_or_else(|_| fastrand::u64(..1 << 48));
    println!("IDEM_SEED={seed}");
    Config {
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_formatted_duration_is_read_back(
        parts in [0_u64..360, 0_u64..100, 0_u64..1000, 0_u64..1000, 1_u64..10_000],
        is_there in any::<[bool; 4]>(),
    ) {
        const UNITS: [(&str, u64); 5] =
            [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let (mut text, mut millis) = (String::new(), 0);
        let is_there = is_there.into_iter().chain([true]);
        for ((number, is_there), (unit, length)) in parts.into_iter().zip(is_there).zip(UNITS) {
            if is_there {
                write!(text, "{number}{unit}").expect("writing to a string cannot fail");
                millis += number * length;
            }
        }
        prop_assert_eq!(read(&text), Ok(millis), "{}", text);
    }

    #[test]
    fn an_invalid_duration_is_named_in_its_error(text in "[0-9 .hmsdy-]{0,12}|.{0,12}") {
        match read(&text) {
            Ok(millis) => prop_assert!((1..=365 * 86_400_000).contains(&millis)),
            Err(problem) => prop_assert!(text.trim().is_empty() || problem.contains(text.trim())),
        }
    }
}
