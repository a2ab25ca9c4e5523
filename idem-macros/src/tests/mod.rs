//! Snapshots of the generated code and of the messages. `UPDATE_EXPECT=1 cargo test` updates them.
#![allow(
    clippy::needless_raw_string_hashes,
    clippy::too_many_lines,
    reason = "a tool writes the snapshots"
)]

mod durations;
mod entries;
mod expansions;
mod messages;
mod shapes;

use crate::messages::mistakes::Mistakes;
use crate::parse::documenters::Documenters;

/// Returns the expansion of `#[idempotent(arguments)] item` and the mistakes.
fn transform(arguments: &str, item: &str) -> (String, Mistakes) {
    transform_for(Documenters::default(), arguments, item)
}

fn transform_for(documenters: Documenters, arguments: &str, item: &str) -> (String, Mistakes) {
    let arguments = arguments.parse().expect("arguments are tokens");
    let item = item.parse().expect("an item is tokens");
    let (item, mistakes) = crate::transform(arguments, item, documenters);
    let is_code = |item: &syn::Item| !matches!(item, syn::Item::Verbatim(_));
    let text = match syn::parse2::<syn::File>(item.clone()) {
        Ok(file) if file.items.iter().all(is_code) => prettyplease::unparse(&file),
        _ => item.to_string(),
    };
    (text, mistakes)
}
