//! Pins the type that the handler's body returns, for inside an `async` block nothing else does.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{
    GenericParam, Generics, Path, PathArguments, ReturnType, Signature, Type, TypeParamBound,
};

/// A statement that is never reached and returns the type that the handler declares.
///
/// Without it `?`, an early `return` and a body that only panics would not know their type.
pub(crate) fn pin(sig: &Signature, private: &TokenStream) -> TokenStream {
    let span = span(sig);
    let ReturnType::Type(_, ty) = &sig.output else {
        return quote_spanned!(span=> if false { return; });
    };
    let mut named = (**ty).clone();
    let mut opaque = Opaque::default();
    opaque.visit_type_mut(&mut named);
    if opaque.parameters.is_empty() {
        return pin_with(span, &quote_spanned!(span=> #private::never::<#ty>()));
    }
    // That an answer is a response is asked of all of them; asked twice, it would be told twice.
    let teaches_nothing = opaque.parameters.iter().all(Parameter::is_only_a_response);
    if teaches_nothing || names_what_an_inner_item_cannot(sig) {
        let named = opaque.parameters.iter().map(Parameter::only_named);
        let pin = pin_erased(span, ty, private);
        return quote!(#(#named)* #pin);
    }
    pin_opaque(sig, &named, &opaque.parameters, private)
}

/// Where the handler declares its answer; its name where it declares none.
pub(crate) fn span(sig: &Signature) -> Span {
    match &sig.output {
        ReturnType::Default => sig.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    }
}

fn pin_with(span: Span, answer: &TokenStream) -> TokenStream {
    quote_spanned!(span=> if false { return #answer; })
}

fn pin_erased(span: Span, ty: &Type, private: &TokenStream) -> TokenStream {
    let mut erased = ty.clone();
    Erase.visit_type_mut(&mut erased);
    match erased {
        Type::Infer(_) => TokenStream::new(),
        erased => pin_with(span, &quote_spanned!(span=> #private::never::<#erased>())),
    }
}

/// `impl Trait` has no place in a body, but as the type parameter of a function it has, where its
/// bounds still teach inference: `impl Stream<Item = Result<Event, Infallible>>` names the only
/// error type that there is.
fn pin_opaque(
    sig: &Signature,
    ty: &Type,
    parameters: &[Parameter],
    private: &TokenStream,
) -> TokenStream {
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
    let span = span(sig);
    let pin = pin_with(
        span,
        &quote_spanned!(span=> __idem_returns::<#(#arguments),*>()),
    );
    quote! {
        fn __idem_returns #parameters () -> #ty #bounds {
            #private::never()
        }
        #pin
    }
}

struct Parameter {
    name: Ident,
    bounds: Vec<TypeParamBound>,
}

impl Parameter {
    fn is_only_a_response(&self) -> bool {
        self.bounds.iter().all(|bound| match bound {
            TypeParamBound::Trait(bound) => {
                let last = bound.path.segments.last();
                last.is_some_and(|segment| segment.ident == "IntoResponse")
            }
            _ => true,
        })
    }

    /// Names the traits where nothing else can: an import that only the signature needs is used.
    fn only_named(&self) -> TokenStream {
        let paths = self.bounds.iter().filter_map(|bound| match bound {
            TypeParamBound::Trait(bound) => Some(without_arguments(&bound.path)),
            _ => None,
        });
        quote!({ #(#[allow(unused_imports)] use #paths as _;)* })
    }
}

fn without_arguments(path: &Path) -> Path {
    let mut path = path.clone();
    for segment in &mut path.segments {
        segment.arguments = PathArguments::None;
    }
    path
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
