//! Every target over its seeds and their mutations, the same ones for the same number.
//!
//! `IDEM_SEED=7` takes other mutations, `IDEM_INPUTS=1000000` more of them. What fails is printed as
//! bytes, to become a seed.

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
        .expect("seeds")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{target} has {} seeds", files.len());
    files
        .iter()
        .map(|file| fs::read(file).expect("a seed"))
        .collect()
}

fn drive(name: &str, inputs: u64, target: fn(&[u8])) {
    let seeds = seeds(name);
    let (seed, inputs) = (number("IDEM_SEED", 1), number("IDEM_INPUTS", inputs));
    println!("IDEM_SEED={seed} IDEM_INPUTS={inputs}");
    let mutations = Mutations::of(&seeds, seed).take(usize::try_from(inputs).expect("fits"));
    for input in seeds.iter().cloned().chain(mutations) {
        let run = catch_unwind(AssertUnwindSafe(|| largest_allocation(|| target(&input))));
        let allocated = run.unwrap_or_else(|_| panic!("{name} with {}", input.escape_ascii()));
        // An input may say that it is as long as it likes.
        let most = (64 << 10) + 64 * input.len();
        let shown = input.escape_ascii();
        assert!(
            allocated <= most,
            "{name} allocates {allocated} bytes at once with {shown}"
        );
    }
}

#[test]
fn no_key_header_does_harm() {
    drive("key", 30_000, crate::key);
}

#[test]
fn no_stored_bytes_do_harm() {
    drive("record", 100_000, crate::record);
}

#[test]
fn no_body_does_harm() {
    drive("json", 50_000, crate::json);
}

#[test]
fn no_half_typed_attribute_does_harm() {
    drive("attribute", 5_000, crate::attribute);
}

/// What the limit above is worth: a decoder that believed a length would go over it.
#[test]
fn an_allocation_is_seen() {
    let allocated = largest_allocation(|| drop(Vec::<u8>::with_capacity(1 << 20)));
    assert!(allocated >= 1 << 20);
}
