//! What must hold for every input, looked at by many.
//!
//! `PROPTEST_CASES=1000000` takes more of them; a failure prints its smallest case and
//! `PROPTEST_RNG_SEED=7` chooses others.

mod fingerprints;
mod ids;
mod json;
mod keys;
mod records;
