//! Writes what documents a handler: for `utoipa` into the `#[utoipa::path]` below the attribute, for `aide` into the type
//! of the last parameter.
//!
//! The key header also marks the operation, so that `Idempotency::document` finds it.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::quote;
use syn::{Attribute, Meta, ReturnType};

use crate::expand::returns;

/// Returns the type that tells `aide` the declared return type. An `impl Trait` cannot be named there.
pub(crate) fn declared(
    output: &ReturnType,
    private: &TokenStream,
    facts: &TokenStream,
) -> TokenStream {
    match output {
        ReturnType::Default => quote!(#private::Declared<(), #facts>),
        ReturnType::Type(_, ty) if returns::has_opaque(ty) => quote!(#private::Undeclared<#facts>),
        ReturnType::Type(_, ty) => quote!(#private::Declared<#ty, #facts>),
    }
}

/// Returns the attribute with one more element in its `params`. Returns other attributes as they are.
pub(crate) fn with_key(attr: &Attribute, private: &TokenStream, facts: &TokenStream) -> Attribute {
    let mut attr = attr.clone();
    if describes_an_operation(&attr)
        && let Meta::List(list) = &mut attr.meta
    {
        let key = quote!(#private::KeyParameter<#facts>);
        list.tokens = with_parameter(list.tokens.clone(), &key);
    }
    attr
}

/// Whether the attribute is `#[utoipa::path]`. The name alone would also be the `#[path]` of a module.
fn describes_an_operation(attr: &Attribute) -> bool {
    let segments = &attr.path().segments;
    segments.len() > 1 && segments.last().is_some_and(|last| last.ident == "path")
}

fn with_parameter(tokens: TokenStream, parameter: &TokenStream) -> TokenStream {
    let mut trees: Vec<TokenTree> = tokens.into_iter().collect();
    let params = trees.windows(2).position(|pair| {
        matches!(&pair[0], TokenTree::Ident(name) if name == "params")
            && matches!(&pair[1], TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis)
    });
    if let Some(at) = params
        && let TokenTree::Group(group) = &trees[at + 1]
    {
        let own = group.stream();
        let comma = needs_comma(&own).then(|| quote!(,));
        let mut extended = Group::new(Delimiter::Parenthesis, quote!(#own #comma #parameter));
        extended.set_span(group.span());
        trees[at + 1] = TokenTree::Group(extended);
        return trees.into_iter().collect();
    }
    let own: TokenStream = trees.into_iter().collect();
    let comma = needs_comma(&own).then(|| quote!(,));
    quote!(#own #comma params(#parameter))
}

fn needs_comma(own: &TokenStream) -> bool {
    let last = own.clone().into_iter().last();
    last.is_some_and(|last| !matches!(last, TokenTree::Punct(punct) if punct.as_char() == ','))
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[track_caller]
    fn check(attr: &Attribute, expected: &Attribute) {
        let changed = with_key(attr, &quote!(p), &quote!(5));
        let text = |attr: &Attribute| quote!(#attr).to_string();
        assert_eq!(text(&changed), text(expected));
    }

    #[test]
    fn a_described_operation_gets_the_key() {
        check(
            &parse_quote!(#[utoipa::path(post)]),
            &parse_quote!(#[utoipa::path(post, params(p::KeyParameter<5>))]),
        );
        check(
            &parse_quote!(#[utoipa::path(post, path = "/",)]),
            &parse_quote!(#[utoipa::path(post, path = "/", params(p::KeyParameter<5>))]),
        );
        check(
            &parse_quote!(#[utoipa::path(params(Page), post)]),
            &parse_quote!(#[utoipa::path(params(Page, p::KeyParameter<5>), post)]),
        );
        check(
            &parse_quote!(#[renamed::path(params(("id" = u64, Path),))]),
            &parse_quote!(#[renamed::path(params(("id" = u64, Path), p::KeyParameter<5>))]),
        );
        check(
            &parse_quote!(#[utoipa::path()]),
            &parse_quote!(#[utoipa::path(params(p::KeyParameter<5>))]),
        );
        check(
            &parse_quote!(#[utoipa::path(params())]),
            &parse_quote!(#[utoipa::path(params(p::KeyParameter<5>))]),
        );
    }

    #[test]
    fn other_attributes_stay_as_they_are() {
        for attr in [
            parse_quote!(#[path = "other.rs"]),
            parse_quote!(#[path(post)]),
            parse_quote!(#[utoipa::path]),
            parse_quote!(#[tracing::instrument(params(a))]),
        ] {
            check(&attr, &attr);
        }
    }
}
