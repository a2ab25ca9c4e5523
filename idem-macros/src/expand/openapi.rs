//! Adds the documentation of a handler: for `utoipa` to the `#[utoipa::path]` below the attribute, for `aide` to the type
//! of the last parameter.
//!
//! The key header also marks the operation, so that `Idempotency::document` finds it.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::{ToTokens as _, quote};
use syn::{Attribute, GenericArgument, Meta, PathArguments, ReturnType, Type};

use crate::expand::returns;

/// Returns the type that tells `aide` the declared return type.
pub(crate) fn declared(
    output: &ReturnType,
    private: &TokenStream,
    facts: &TokenStream,
) -> TokenStream {
    let declared = match output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => named(ty, private).into_token_stream(),
    };
    quote!(#private::Declared<#declared, #facts>)
}

/// Returns the type with `Undeclared` in the place of each `impl Trait`, which cannot be named in an argument.
///
/// `aide` documents the rest of these types without their `impl Trait`. Of any other type with an `impl Trait`, it either
/// documents nothing, such as of a tuple, or needs to know the type, such as of `Json<impl Serialize>`.
fn named(ty: &Type, private: &TokenStream) -> Type {
    const DOCUMENTED_IN_PART: [&str; 4] = ["Result", "Option", "UseApi", "NoApi"];
    if !returns::has_opaque(ty) {
        return ty.clone();
    }
    let mut ty = ty.clone();
    if let Type::Path(path) = &mut ty
        && path.qself.is_none()
        && let Some(last) = path.path.segments.last_mut()
        && DOCUMENTED_IN_PART.iter().any(|name| last.ident == name)
        && let PathArguments::AngleBracketed(arguments) = &mut last.arguments
    {
        for argument in &mut arguments.args {
            if let GenericArgument::Type(ty) = argument {
                *ty = named(ty, private);
            }
        }
        return ty;
    }
    syn::parse_quote!(#private::Undeclared)
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
    fn the_rest_of_a_type_with_an_opaque_type_is_declared() {
        let check = |output: ReturnType, expected: Type| {
            let declared = declared(&output, &quote!(p), &quote!(5));
            let expected = quote!(p::Declared<#expected, 5>);
            assert_eq!(declared.to_string(), expected.to_string());
        };
        check(parse_quote!(), parse_quote!(()));
        check(parse_quote!(-> Json<Order>), parse_quote!(Json<Order>));
        check(
            parse_quote!(-> Result<impl IntoResponse, api::Error>),
            parse_quote!(Result<p::Undeclared, api::Error>),
        );
        check(
            parse_quote!(-> axum::response::Result<Option<(StatusCode, impl IntoResponse)>>),
            parse_quote!(axum::response::Result<Option<p::Undeclared>>),
        );
        check(
            parse_quote!(-> UseApi<impl IntoResponse, Json<Order>>),
            parse_quote!(UseApi<p::Undeclared, Json<Order>>),
        );
        for opaque in [
            parse_quote!(-> impl IntoResponse),
            parse_quote!(-> Json<impl Serialize>),
            parse_quote!(-> <Order as Answered>::Result<impl IntoResponse>),
        ] {
            check(opaque, parse_quote!(p::Undeclared));
        }
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
