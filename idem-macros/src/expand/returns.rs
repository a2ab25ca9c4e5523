//! Pins the return type of the handler's body, because an `async` block cannot declare its type.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{
    GenericArgument, Lifetime, Path, PathArguments, ReturnType, Signature, Token, TraitBound, Type,
    TypeImplTrait, TypeParamBound, TypePath, TypeReference,
};

/// Returns a statement that is never reached, and whose value has the return type of the handler.
///
/// Without this statement, the compiler could not infer the type of `?`, of an early `return`, or of a
/// body that only panics.
pub(crate) fn pin(sig: &Signature, private: &TokenStream) -> TokenStream {
    let span = span(sig);
    let ReturnType::Type(_, ty) = &sig.output else {
        return quote_spanned!(span=> if false { return; });
    };
    let bounds = opaque_bounds(ty);
    if bounds.is_empty() {
        return pin_with(span, &quote_spanned!(span=> #private::never::<#ty>()));
    }
    if bounds.iter().any(is_checked)
        && let Some(pin) = pin_opaque(ty, span, private)
    {
        return pin;
    }
    let used = used_traits(&bounds);
    let pin = pin_erased(span, ty, private);
    quote!({ #used } #pin)
}

/// Returns items that name the traits. The erased type names no trait, so the user's own imports of the traits would
/// be unused.
///
/// A path of an import is stricter than a path of a type, and an import needs an `allow`, which is an error under a
/// `forbid`. So only a trait with arguments is imported: a function cannot name arguments such as `Self`.
fn used_traits(bounds: &[TraitBound]) -> TokenStream {
    let (imported, named): (Vec<_>, Vec<_>) = bounds.iter().partition(|bound| has_arguments(bound));
    let imported = imported.iter().map(|bound| without_arguments(&bound.path));
    let function = (!named.is_empty()).then(|| quote!(fn __idem_traits<__T: #(#named)+*>() {}));
    quote!(#function #(#[allow(unused_imports)] use #imported as _;)*)
}

/// Returns the place of the declared return type, or else of the handler's name.
pub(crate) fn span(sig: &Signature) -> Span {
    match &sig.output {
        ReturnType::Default => sig.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    }
}

fn pin_with(span: Span, value: &TokenStream) -> TokenStream {
    quote_spanned!(span=> if false { return #value; })
}

fn pin_erased(span: Span, ty: &Type, private: &TokenStream) -> TokenStream {
    let mut erased = ty.clone();
    Erase.visit_type_mut(&mut erased);
    match erased {
        Type::Infer(_) => TokenStream::new(),
        erased => pin_with(span, &quote_spanned!(span=> #private::never::<#erased>())),
    }
}

/// Returns the traits of every `impl Trait` in the type.
fn opaque_bounds(ty: &Type) -> Vec<TraitBound> {
    struct Bounds(Vec<TraitBound>);
    impl Visit<'_> for Bounds {
        fn visit_type_impl_trait(&mut self, opaque: &TypeImplTrait) {
            let bounds = opaque.bounds.iter().filter_map(|bound| match bound {
                TypeParamBound::Trait(bound) => Some(bound.clone()),
                _ => None,
            });
            self.0.extend(bounds);
            visit::visit_type_impl_trait(self, opaque);
        }
    }
    let mut bounds = Bounds(Vec::new());
    bounds.visit_type(ty);
    bounds.0
}

/// Returns whether the return type must be checked against the bound. Every return type must implement `IntoResponse`
/// and `Send` anyway. A bound such as `Stream<Item = Event>` guides inference, and a trait of the user would be dead
/// code if no function used it.
fn is_checked(bound: &TraitBound) -> bool {
    let last = bound.path.segments.last();
    let is_known = last.is_some_and(|last| {
        let known = ["IntoResponse", "Send", "Sync", "Sized", "Unpin"];
        known.iter().any(|name| last.ident == name)
    });
    !is_known || has_arguments(bound)
}

fn has_arguments(bound: &TraitBound) -> bool {
    let mut segments = bound.path.segments.iter();
    segments.any(|segment| !segment.arguments.is_none())
}

fn without_arguments(path: &Path) -> Path {
    let mut path = path.clone();
    for segment in &mut path.segments {
        segment.arguments = PathArguments::None;
    }
    path
}

/// Returns the statement for a type with `impl Trait`, which a body cannot name. A function can have a
/// type parameter instead, and the bounds of the parameter still guide inference. For example, only
/// `impl Stream<Item = Result<Event, Infallible>>` contains the error type.
///
/// A function inside the handler can use neither `Self` nor the type parameters of the handler. So every
/// other type is a type parameter too, and the body passes the type:
///
/// ```text
/// fn __idem_returns<__IdemType0: ?Sized, __IdemOpaque0: Stream<Item = __IdemType0>>()
///     -> Sse<__IdemOpaque0> { … }
/// return __idem_returns::<Result<Event, Infallible>, _>();
/// ```
fn pin_opaque(ty: &Type, span: Span, private: &TokenStream) -> Option<TokenStream> {
    let mut ty = ty.clone();
    let mut parameters = TypeParameters::default();
    parameters.visit_type_mut(&mut ty);
    if parameters.has_failed {
        return None;
    }
    let TypeParameters {
        declared,
        arguments,
        ..
    } = parameters;
    let pin = pin_with(
        span,
        &quote_spanned!(span=> __idem_returns::<#(#arguments),*>()),
    );
    // The block separates the function from a function of the same name in the body.
    Some(quote! {
        {
            fn __idem_returns<#(#declared),*>() -> #ty {
                #private::never()
            }
            #pin
        }
    })
}

/// Replaces each `impl Trait`, and each type next to one, with a type parameter.
#[derive(Default)]
struct TypeParameters {
    declared: Vec<TokenStream>,
    arguments: Vec<TokenStream>,
    /// The type cannot be expressed with type parameters.
    has_failed: bool,
}

impl TypeParameters {
    fn parameter(&mut self, name: &str, bounds: &TokenStream, argument: TokenStream) -> Type {
        let name = format_ident!("__Idem{name}{}", self.declared.len());
        self.declared.push(quote!(#name: #bounds));
        self.arguments.push(argument);
        syn::parse_quote!(#name)
    }

    fn bounds(&mut self, bounds: &mut Punctuated<TypeParamBound, Token![+]>) -> TokenStream {
        let mut kept: Vec<&TypeParamBound> = Vec::new();
        for bound in bounds.iter_mut() {
            match bound {
                TypeParamBound::Trait(bound) => {
                    self.has_failed |= bound.lifetimes.is_some();
                    for segment in &mut bound.path.segments {
                        self.path_arguments(&mut segment.arguments, true);
                    }
                }
                TypeParamBound::Lifetime(_) => {}
                _ => continue,
            }
            kept.push(bound);
        }
        quote!(#(#kept)+*)
    }

    fn path_arguments(&mut self, arguments: &mut PathArguments, of_a_trait: bool) {
        match arguments {
            PathArguments::None => {}
            PathArguments::AngleBracketed(arguments) => {
                for argument in &mut arguments.args {
                    match argument {
                        GenericArgument::Type(ty) => self.visit_type_mut(ty),
                        GenericArgument::AssocType(assoc) => self.associated(&mut assoc.ty),
                        GenericArgument::Constraint(constraint) => {
                            self.bounds(&mut constraint.bounds);
                        }
                        GenericArgument::Lifetime(_) => {}
                        // Only the handler may be able to name the constant.
                        _ => self.has_failed = true,
                    }
                }
            }
            // `Fn(&str) -> T` declares lifetimes, which a type parameter cannot name.
            PathArguments::Parenthesized(_) => self.has_failed |= of_a_trait,
        }
    }

    /// Handles the type in `Item = …`, which may be unsized.
    fn associated(&mut self, ty: &mut Type) {
        if has_opaque(ty) {
            self.visit_type_mut(ty);
        } else {
            self.has_failed |= borrows(ty);
            *ty = self.parameter(
                "Type",
                &quote!(?::core::marker::Sized),
                ty.to_token_stream(),
            );
        }
    }
}

impl VisitMut for TypeParameters {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if !has_opaque(ty) {
            let unsized_type = matches!(ty, Type::Slice(_) | Type::TraitObject(_))
                || matches!(ty, Type::Path(path) if path.path.is_ident("str"));
            let bounds = if unsized_type {
                quote!(?::core::marker::Sized)
            } else {
                TokenStream::new()
            };
            self.has_failed |= borrows(ty) || looks_like_a_constant(ty);
            *ty = self.parameter("Type", &bounds, ty.to_token_stream());
            return;
        }
        match ty {
            Type::ImplTrait(opaque) => {
                let bounds = self.bounds(&mut opaque.bounds);
                *ty = self.parameter("Opaque", &bounds, quote!(_));
            }
            Type::Path(TypePath {
                qself: None, path, ..
            }) => {
                let first = path.segments.first();
                self.has_failed |= first.is_some_and(|first| first.ident == "Self");
                if let Some(last) = path.segments.last_mut() {
                    self.has_failed |= !may_hold_any(last);
                    self.path_arguments(&mut last.arguments, false);
                }
            }
            Type::Tuple(_) | Type::Paren(_) | Type::Group(_) => {
                visit_mut::visit_type_mut(self, ty);
            }
            _ => self.has_failed = true,
        }
    }
}

/// Returns whether the type contains an `impl Trait`.
pub(crate) fn has_opaque(ty: &Type) -> bool {
    !opaque_bounds(ty).is_empty()
}

/// Returns whether the type accepts any type as its other arguments. Other types may require a bound that
/// the type parameter does not have.
fn may_hold_any(segment: &syn::PathSegment) -> bool {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return true;
    };
    let known = ["Result", "Option", "Either", "Box", "Vec"];
    arguments.args.len() == 1 || known.iter().any(|name| segment.ident == name)
}

/// Returns whether the type has a lifetime that the body cannot name.
fn borrows(ty: &Type) -> bool {
    struct Borrowed(bool);
    impl Visit<'_> for Borrowed {
        fn visit_type_reference(&mut self, ty: &TypeReference) {
            self.0 |= ty.lifetime.is_none();
            visit::visit_type_reference(self, ty);
        }
        fn visit_lifetime(&mut self, lifetime: &Lifetime) {
            self.0 |= lifetime.ident != "static";
        }
    }
    let mut borrowed = Borrowed(false);
    borrowed.visit_type(ty);
    borrowed.0
}

/// Returns whether the type is probably a constant, such as `MAX` in `Padded<impl IntoResponse, MAX>`.
fn looks_like_a_constant(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.get_ident().is_some_and(|name| {
        let name = name.to_string();
        name.len() > 2 && !name.contains(char::is_lowercase)
    })
}

/// Replaces each `impl Trait` with `_`.
struct Erase;

impl VisitMut for Erase {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if matches!(ty, Type::ImplTrait(_)) {
            *ty = syn::parse_quote!(_);
        }
        visit_mut::visit_type_mut(self, ty);
    }
}
