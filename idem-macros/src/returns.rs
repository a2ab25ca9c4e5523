//! Pins the type that the handler's body returns, for inside an `async` block nothing else does.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::visit_mut::{self, VisitMut};
use syn::{GenericParam, Generics, ReturnType, Signature, Type, TypeParamBound};

/// A statement that is never entered and returns the type that the handler declares.
///
/// Without it `?`, an early `return` and a body that only panics would not know their type.
/// `Option::<Json<Trade>>::None` names the type without making a value of it, so that nothing is
/// unreachable and no lint wakes up.
pub(crate) fn pin(sig: &Signature) -> TokenStream {
    let ReturnType::Type(_, ty) = &sig.output else {
        return quote!(if false {
            return;
        });
    };
    if is_bare_into_response(ty) {
        return TokenStream::new();
    }
    let mut named = (**ty).clone();
    let mut opaque = Opaque::default();
    opaque.visit_type_mut(&mut named);
    if opaque.parameters.is_empty() {
        return pin_with(&quote!(::core::option::Option::<#ty>::None));
    }
    if names_what_an_inner_item_cannot(sig) {
        let mut erased = (**ty).clone();
        Erase.visit_type_mut(&mut erased);
        return match erased {
            Type::Infer(_) => TokenStream::new(),
            erased => pin_with(&quote!(::core::option::Option::<#erased>::None)),
        };
    }
    pin_opaque(sig, &named, &opaque.parameters)
}

fn pin_with(none: &TokenStream) -> TokenStream {
    let answer = Ident::new("__idem_answer", proc_macro2::Span::mixed_site());
    quote! {
        if let ::core::option::Option::Some(#answer) = #none {
            return #answer;
        }
    }
}

/// `impl Trait` has no place in a body, but as the type parameter of a function it has, where its
/// bounds still teach inference: `impl Stream<Item = Result<Event, Infallible>>` names the only
/// error type that there is.
fn pin_opaque(sig: &Signature, ty: &Type, parameters: &[Parameter]) -> TokenStream {
    let mut generics = if mentions_any(ty, parameters, &sig.generics) {
        sig.generics.clone()
    } else {
        Generics::default()
    };
    let mut arguments: Vec<TokenStream> = Vec::new();
    for param in &generics.params {
        match param {
            GenericParam::Lifetime(_) => {}
            GenericParam::Type(param) => arguments.push(param.ident.to_token_stream()),
            GenericParam::Const(param) => arguments.push(param.ident.to_token_stream()),
        }
    }
    for Parameter { name, bounds } in parameters {
        generics.params.push(syn::parse_quote!(#name: #(#bounds)+*));
        arguments.push(quote!(_));
    }
    let (parameters, _, bounds) = generics.split_for_impl();
    let pin = pin_with(&quote!(__idem_returns::<#(#arguments),*>()));
    quote! {
        fn __idem_returns #parameters () -> ::core::option::Option<#ty> #bounds {
            ::core::option::Option::None
        }
        #pin
    }
}

fn is_bare_into_response(ty: &Type) -> bool {
    let Type::ImplTrait(ty) = ty else {
        return false;
    };
    ty.bounds.iter().all(|bound| match bound {
        TypeParamBound::Trait(bound) => {
            let last = bound.path.segments.last();
            last.is_some_and(|segment| segment.ident == "IntoResponse")
        }
        _ => true,
    })
}

struct Parameter {
    name: Ident,
    bounds: Vec<TypeParamBound>,
}

/// Puts a type parameter in the place of each `impl Trait`.
#[derive(Default)]
struct Opaque {
    parameters: Vec<Parameter>,
}

impl VisitMut for Opaque {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        visit_mut::visit_type_mut(self, ty);
        let Type::ImplTrait(opaque) = ty else { return };
        let name = format_ident!("__IdemOpaque{}", self.parameters.len());
        let bounds = opaque
            .bounds
            .iter()
            .filter(|bound| !matches!(bound, TypeParamBound::PreciseCapture(_)));
        self.parameters.push(Parameter {
            name: name.clone(),
            bounds: bounds.cloned().collect(),
        });
        *ty = syn::parse_quote!(#name);
    }
}

/// Puts `_` in the place of each `impl Trait`.
struct Erase;

impl VisitMut for Erase {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if matches!(ty, Type::ImplTrait(_)) {
            *ty = syn::parse_quote!(_);
        }
        visit_mut::visit_type_mut(self, ty);
    }
}

/// A function inside the handler knows neither `Self` nor the type parameters of an `impl` block
/// around it. Those cannot be seen from here; a name of one letter or two is taken for one.
fn names_what_an_inner_item_cannot(sig: &Signature) -> bool {
    let (generics, output) = (&sig.generics, &sig.output);
    let bounds = &generics.where_clause;
    any_ident(quote!(#generics #bounds #output), &|ident| {
        let name = ident.to_string();
        let looks_like_a_parameter = name.len() <= 2
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        name == "Self" || (looks_like_a_parameter && !declares(generics, ident))
    })
}

fn declares(generics: &Generics, ident: &Ident) -> bool {
    generics.params.iter().any(|param| match param {
        GenericParam::Lifetime(_) => false,
        GenericParam::Type(param) => param.ident == *ident,
        GenericParam::Const(param) => param.ident == *ident,
    })
}

fn mentions_any(ty: &Type, parameters: &[Parameter], generics: &Generics) -> bool {
    let bounds = parameters.iter().flat_map(|parameter| &parameter.bounds);
    any_ident(quote!(#ty #(#bounds)*), &|ident| declares(generics, ident))
}

fn any_ident(tokens: TokenStream, wanted: &dyn Fn(&Ident) -> bool) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => wanted(&ident),
        TokenTree::Group(group) => any_ident(group.stream(), wanted),
        _ => false,
    })
}
