//! Generates the calls that build the scope.

use proc_macro2::{Delimiter, Group, TokenStream};
use quote::{ToTokens, quote};
use syn::Expr;
use syn::spanned::Spanned as _;

use crate::check::scope::Part;
use crate::expand::parameters::{Opened, Parameters, local};

/// Returns the call that adds the part to the scope.
pub(crate) fn part(part: &Part, parameters: &Parameters<'_>) -> TokenStream {
    match part {
        Part::Global => quote!(.global()),
        Part::Token => quote!(.token()),
        Part::Header(name) => quote!(.header(#name)),
        Part::Value(value) => {
            let argument = local("__idem_value");
            let (opened, value) = parameters.opened(value, &part.names());
            let reference = match value {
                Opened::Reference(reference) => reference,
                Opened::Value(value) => reference_to(&value),
            };
            if opened.is_empty() {
                quote!(.value(|#argument| #argument.is(#reference)))
            } else {
                quote!(.value(|#argument| { #opened #argument.is(#reference) }))
            }
        }
    }
}

/// Returns `&value`, with the span of the user's expression, so that an error about its type points there.
pub(crate) fn reference_to(value: &Expr) -> TokenStream {
    let and = syn::Token![&](value.span());
    let binds_tighter = matches!(
        value,
        Expr::Path(_)
            | Expr::Field(_)
            | Expr::MethodCall(_)
            | Expr::Call(_)
            | Expr::Index(_)
            | Expr::Lit(_)
            | Expr::Macro(_)
            | Expr::Paren(_)
            | Expr::Reference(_)
    );
    let tokens = value.to_token_stream();
    if binds_tighter {
        return quote!(#and #tokens);
    }
    let mut parentheses = Group::new(Delimiter::Parenthesis, tokens);
    parentheses.set_span(value.span());
    quote!(#and #parentheses)
}
