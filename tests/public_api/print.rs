//! Prints the public API from rustdoc's JSON, one item per line.

use std::error::Error;

/// Traits that a stable program cannot name. They differ between nightly compilers.
const UNSTABLE: [&str; 3] = ["Freeze", "StructuralPartialEq", "UnsafeUnpin"];

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or("usage: print <rustdoc JSON>")?;
    let api = public_api::Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .build()?;
    for item in api.items() {
        let line = item.to_string();
        let is_unstable = |name: &&str| line.contains(&format!("core::marker::{name} for "));
        if !UNSTABLE.iter().any(|name| is_unstable(&name)) {
            println!("{line}");
        }
    }
    Ok(())
}
