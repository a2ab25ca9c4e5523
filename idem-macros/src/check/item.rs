//! Reports an item that is not a function.

use proc_macro2::TokenStream;

use crate::messages::mistakes::Mistakes;
use crate::parse::handler;

/// Reports an item that did not parse as a function, and returns what of it can still be emitted.
pub(crate) fn not_a_function(
    error: &syn::Error,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> TokenStream {
    let Some(other) = handler::other_item(item.clone()) else {
        let message = format!("cannot read this function: {error}");
        mistakes.at_span(error.span(), message);
        return item;
    };
    mistakes.at(
        &other.token,
        format!(
            "`#[idempotent]` goes on a handler, an `async fn`, and not on {}",
            other.name
        ),
    );
    // In place of an expression only the error may be emitted.
    if other.is_expression {
        TokenStream::new()
    } else {
        item
    }
}
