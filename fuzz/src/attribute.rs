//! Fuzzes the attribute with half-typed code, as an editor sends it.

use proc_macro2::TokenStream;

/// The longest input. Tokens can nest as deeply as the input is long, and the compiler's parser also limits
/// the depth.
const LONGEST: usize = 600;

/// The attribute must return for any tokens: either the generated item, or mistakes and the item as it
/// was. The first line of the input contains the arguments. The rest is the item.
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
    // A body that does not parse is passed through unchanged.
    let is_whole = syn::parse2::<syn::ItemFn>(item.clone()).is_ok();
    let (written, is_fine) = idem_attribute::transform(arguments, item);
    if is_fine && is_whole {
        let written = written.to_string();
        syn::parse_str::<syn::File>(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    }
    assert!(was_empty || !written.is_empty(), "the item is lost");
}
