//! Reports an item that is not a function.

use proc_macro2::TokenStream;

use crate::messages::mistakes::Mistakes;
use crate::parse::handler;

/// Reports an item that is not a function, and returns the tokens that can still be emitted.
pub(crate) fn not_a_function(
    error: &syn::Error,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> TokenStream {
    let Some(other) = handler::other_item(item.clone()) else {
        let message = format!("cannot parse this function: {error}");
        mistakes.at_span(error.span(), message);
        return item;
    };
    mistakes.at(
        &other.token,
        format!(
            "`#[idempotent]` goes on a handler, which is an `async fn`, and not on {}",
            other.name
        ),
    );
    // An expression must be replaced by the error, because the error expands to an expression.
    if other.is_expression {
        TokenStream::new()
    } else {
        item
    }
}
