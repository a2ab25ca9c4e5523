//! Runs every target on its seeds and on mutations of them. The same seed number gives the same
//! mutations.
//!
//! `IDEM_SEED=7` selects other mutations, and `IDEM_INPUTS=1000000` more of them. A failing input is
//! printed as bytes, so that it can be added to the seeds.

mod allocations;
mod mutations;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use allocations::largest_allocation;
use mutations::Mutations;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("a folder of seeds")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{target} has {} seeds", files.len());
    files
        .iter()
        .map(|file| fs::read(file).expect("a readable seed"))
        .collect()
}

fn drive(name: &str, inputs: u64, target: fn(&[u8])) {
    let seeds = seeds(name);
    let (seed, inputs) = (number("IDEM_SEED", 1), number("IDEM_INPUTS", inputs));
    println!("IDEM_SEED={seed} IDEM_INPUTS={inputs}");
    let mutations =
        Mutations::of(&seeds, seed).take(usize::try_from(inputs).expect("the number fits a usize"));
    for input in seeds.iter().cloned().chain(mutations) {
        let run = catch_unwind(AssertUnwindSafe(|| largest_allocation(|| target(&input))));
        let allocated =
            run.unwrap_or_else(|_| panic!("{name} panics with {}", input.escape_ascii()));
        // An input may declare any length, so the limit depends on its real length.
        let most = (64 << 10) + 64 * input.len();
        let shown = input.escape_ascii();
        assert!(
            allocated <= most,
            "{name} allocates {allocated} bytes at once with {shown}"
        );
    }
}

#[test]
fn key_headers_never_panic_or_allocate_too_much() {
    drive("key", 30_000, crate::key);
}

#[test]
fn stored_bytes_never_panic_or_allocate_too_much() {
    drive("record", 100_000, crate::record);
}

#[test]
fn sealed_records_never_panic_or_allocate_too_much_and_only_genuine_ones_open() {
    drive("sealed", 20_000, crate::sealed);
}

#[test]
fn json_bodies_never_panic_or_allocate_too_much() {
    drive("json", 50_000, crate::json);
}

#[test]
fn half_typed_attributes_never_panic_or_allocate_too_much() {
    drive("attribute", 5_000, crate::attribute);
}

/// Proves that the limit above works: a decoder that trusted a declared length would exceed the limit.
#[test]
fn a_large_allocation_is_detected() {
    let allocated = largest_allocation(|| drop(Vec::<u8>::with_capacity(1 << 20)));
    assert!(allocated >= 1 << 20);
}
