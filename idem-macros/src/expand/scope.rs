//! Generates the calls that choose the key and build the scope.

use proc_macro2::{Delimiter, Group, Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::Expr;
use syn::spanned::Spanned as _;

use crate::check::key::Key;
use crate::check::scope::Part;
use crate::expand::parameters::{Opened, Parameters, local};

/// Returns the call that adds the part to the scope.
pub(crate) fn part(part: &Part, parameters: &Parameters<'_>) -> TokenStream {
    match part {
        Part::Global => quote!(.global()),
        Part::Token => quote!(.token()),
        Part::Header(name) => quote!(.header(#name)),
        Part::Value(value) => {
            let read = read(value, &part.names(), parameters);
            quote!(.value(#read))
        }
    }
}

/// Returns the call that chooses the key.
pub(crate) fn key(key: &Key, parameters: &Parameters<'_>) -> TokenStream {
    match key {
        Key::Header(name) => quote!(.key_header(#name)),
        Key::Value(value) => {
            let read = read(value, &key.names(), parameters);
            quote!(.key(#read))
        }
    }
}

/// Returns the closure that reads the value of an expression.
fn read(value: &Expr, names: &[Ident], parameters: &Parameters<'_>) -> TokenStream {
    let argument = local("__idem_value");
    let (opened, value) = parameters.opened(value, names);
    let reference = match value {
        Opened::Reference(reference) => reference,
        Opened::Value(value) => reference_to(&value),
    };
    if opened.is_empty() {
        quote!(|#argument| #argument.is(#reference))
    } else {
        quote!(|#argument| { #opened #argument.is(#reference) })
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
