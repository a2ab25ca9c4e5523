//! Checks with many random inputs what must hold for every input.
//!
//! A failure prints its seed and its smallest case. `IDEM_SEED=7` repeats the cases of that seed.
//! `PROPTEST_CASES=1000000` runs more cases.

mod fingerprints;
mod ids;
mod json;
mod keys;
mod records;

use proptest::test_runner::{Config, RngSeed};

fn config() -> Config {
    let given = std::env::var("IDEM_SEED").map(|seed| seed.parse().expect("a number"));
    let seed = given.unwrap_or_else(|_| fastrand::u64(..1 << 48));
    println!("IDEM_SEED={seed}");
    Config {
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    }
}
