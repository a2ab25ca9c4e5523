//! The attribute reads what somebody is in the middle of typing.

use proc_macro2::TokenStream;

/// Tokens nest as deeply as the input is long, and the parser of the compiler has its own limit.
const LONGEST: usize = 600;

/// Whatever the tokens, the attribute returns: with an item, or with a complaint and what was there.
/// The input's first line are the arguments, the rest is the item.
pub fn attribute(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if text.len() > LONGEST {
        return;
    }
    let (arguments, item) = text
        .split_once('\n')
        .unwrap_or((text, "async fn handler() {}"));
    let (Ok(arguments), Ok(item)) = (arguments.parse(), item.parse::<TokenStream>()) else {
        return;
    };
    let was_empty = item.is_empty();
    // A body that is typed half goes through as it is.
    let is_whole = syn::parse2::<syn::ItemFn>(item.clone()).is_ok();
    let (written, is_fine) = idem_attribute::transform(arguments, item);
    if is_fine && is_whole {
        let written = written.to_string();
        syn::parse_str::<syn::File>(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    }
    assert!(was_empty || !written.is_empty(), "the item is lost");
}
