//! Checks everything in the signature that prevents the function from being an axum handler.

use proc_macro2::Span;
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    GenericParam, Lifetime, ParenthesizedGenericArguments, ReturnType, Safety, Type, TypeFnPtr,
    TypeImplTrait, TypeReference,
};

use crate::check::repair::Repair;
use crate::messages::mistakes::Mistakes;
use crate::messages::words::code;
use crate::parse::body_extractors::{body_extractor, own_type};
use crate::parse::handler::{Handler, Parameter};

/// axum implements its `Handler` trait for functions with at most this many parameters.
const MOST_PARAMETERS: usize = 16;

/// Checks the function, and returns the repair that lets the rest of the crate compile.
pub(crate) fn check(handler: &Handler, mistakes: &mut Mistakes) -> Repair {
    let sig = &handler.sig;
    let mut repair = Repair::AsWritten;
    if handler.body.is_none() {
        mistakes.at_span(
            sig.ident.span(),
            "a method without a body is not a handler; put the attribute on an `async fn` with a body",
        );
        return repair;
    }
    if let Some(lifetime) = of_async_trait(handler) {
        mistakes.at_span(
            lifetime,
            "`#[async_trait]` rewrote this function before `#[idempotent]` could read it; move the \
             body into an `async fn` outside the trait, and put the attribute on that function",
        );
        return repair;
    }
    if let Some(constness) = &sig.constness {
        mistakes.at(constness, "a handler cannot be `const`; write `async fn`");
        repair = Repair::Qualifiers;
    } else if sig.asyncness.is_none() {
        mistakes.at_span(
            sig.fn_token.span,
            "a handler must be `async`; write `async fn`",
        );
        repair = Repair::Qualifiers;
    }
    if let Safety::Unsafe(unsafety) = &sig.safety {
        mistakes.at(
            unsafety,
            "a handler cannot be `unsafe`; remove `unsafe`, and write an `unsafe` block inside the handler",
        );
        repair = Repair::Qualifiers;
    }
    if let Some(abi) = &sig.abi {
        mistakes.at(
            abi,
            "a handler uses the calling convention of Rust; remove `extern`",
        );
        repair = Repair::Qualifiers;
    }
    if let Some(variadic) = &sig.variadic {
        mistakes.at(
            variadic,
            "a handler has a fixed number of arguments; remove `...`",
        );
    }
    if let Some(receiver) = &handler.receiver {
        mistakes.at(
            receiver,
            "methods with `self` are not handlers; move the body into a function without `self`",
        );
    }
    if let ReturnType::Type(_, ty) = &sig.output
        && let Type::Never(never) = &**ty
    {
        mistakes.at(
            never,
            "a handler returns a response, and `!` is not a response; write `std::convert::Infallible`",
        );
        repair = Repair::Stub;
    }
    if let ReturnType::Type(_, ty) = &sig.output
        && let Some(mistake) = response_borrows(ty)
    {
        mistakes.push(mistake);
        repair = Repair::Empty;
    }
    for param in &sig.generics.params {
        if let GenericParam::Lifetime(lifetime) = param {
            mistakes.at(
                lifetime,
                "a handler may outlive its request, so it cannot borrow; remove the lifetime and take owned values",
            );
        }
    }
    if handler.parameters.len() > MOST_PARAMETERS {
        mistakes.at(
            handler.parameters[MOST_PARAMETERS].pat.to_token_stream(),
            format!(
                "a handler takes at most {MOST_PARAMETERS} arguments; put some of them into a tuple, \
                 such as `(a, b): (A, B)`"
            ),
        );
        repair = Repair::Stub;
    }
    for parameter in &handler.parameters {
        if check_parameter(parameter, mistakes) {
            repair = Repair::Stub;
        }
    }
    if check_body_extractors(handler, mistakes) {
        repair = Repair::Stub;
    }
    repair
}

/// Reports each argument before the last that reads the body, and returns whether there is one.
fn check_body_extractors(handler: &Handler, mistakes: &mut Mistakes) -> bool {
    let last = handler.last().and_then(|last| body_extractor(&last.ty));
    let mut is_found = false;
    for parameter in handler.head() {
        let Some(name) = body_extractor(&parameter.ty) else {
            continue;
        };
        let message = match &last {
            Some(last) => format!(
                "`{name}` reads the body, and so does `{last}`; a body is read once, so keep one of them as the last argument{}",
                own_type(&name)
            ),
            None => format!(
                "`{name}` reads the body, so it has to be the last argument; move it to the end{}",
                own_type(&name)
            ),
        };
        mistakes.at(&parameter.ty, message);
        is_found = true;
    }
    is_found
}

/// Reports the mistakes of a parameter, and returns whether they prevent the function from being a
/// handler.
fn check_parameter(parameter: &Parameter, mistakes: &mut Mistakes) -> bool {
    struct ImplTrait(Option<TypeImplTrait>);
    impl Visit<'_> for ImplTrait {
        fn visit_type_impl_trait(&mut self, ty: &TypeImplTrait) {
            self.0.get_or_insert_with(|| ty.clone());
            visit::visit_type_impl_trait(self, ty);
        }
    }
    if let Some(cfg) = parameter
        .attrs
        .iter()
        .find(|attr| attr.path().is_ident("cfg"))
    {
        mistakes.at(
            cfg,
            "an argument cannot be conditional; put `#[cfg(…)]` on two versions of the handler",
        );
    }
    if borrows(&parameter.ty, mistakes) {
        return true;
    }
    let mut found = ImplTrait(None);
    found.visit_type(&parameter.ty);
    if let Some(ty) = found.0 {
        let bounds = code(&ty.bounds);
        mistakes.at(
            ty,
            format!(
                "a router cannot infer this type; declare a type parameter `R: {bounds}`, \
                 and name the type in the route, as in `post(place::<MyType>)`"
            ),
        );
        return true;
    }
    false
}

/// Looks for the borrows in a type.
#[derive(Default)]
struct Borrowed {
    reference: Option<TypeReference>,
    elided: Option<Lifetime>,
    is_declared: bool,
}
impl Visit<'_> for Borrowed {
    fn visit_type_reference(&mut self, ty: &TypeReference) {
        match &ty.lifetime {
            Some(lifetime) if lifetime.ident != "_" => visit::visit_type_reference(self, ty),
            _ => {
                self.reference.get_or_insert_with(|| ty.clone());
            }
        }
    }
    fn visit_lifetime(&mut self, lifetime: &Lifetime) {
        if lifetime.ident == "_" {
            self.elided.get_or_insert_with(|| lifetime.clone());
        } else if lifetime.ident != "static" {
            // The declaration of the lifetime has its own mistake.
            self.is_declared = true;
        }
    }
    // The lifetimes in the type of a function belong to that function, as in `Arc<dyn Fn(&str)>`.
    fn visit_type_fn_ptr(&mut self, _: &TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments(&mut self, _: &ParenthesizedGenericArguments) {}
}

/// Reports a type that borrows from the request, itself or inside it as `Path<&str>` does, and returns
/// whether it does.
fn borrows(ty: &Type, mistakes: &mut Mistakes) -> bool {
    const HOW: &str = "a handler cannot borrow its arguments";
    let mut borrowed = Borrowed::default();
    match ty {
        Type::Reference(reference) if is_static(reference) => {
            borrowed.reference = Some(reference.clone());
        }
        ty => borrowed.visit_type(ty),
    }
    if let Some(reference) = borrowed.reference {
        let inner = code(&reference.elem);
        let owned = match inner.as_str() {
            "str" => "write `String`".to_owned(),
            "[u8]" => "write `Bytes`".to_owned(),
            _ => format!(
                "take `{inner}` by value, or through an extractor such as `State` or `Json`"
            ),
        };
        mistakes.at(reference, format!("{HOW}; {owned}"));
        return true;
    }
    if let Some(lifetime) = borrowed.elided {
        mistakes.at(
            lifetime,
            format!("{HOW}; write `'static`, or an owned type"),
        );
        return true;
    }
    borrowed.is_declared
}

/// Returns the mistake of a return type with a borrow that has no lifetime. The expansion would compile, because the
/// compiler infers the lifetime in the body, but the function without the attribute would not.
fn response_borrows(ty: &Type) -> Option<syn::Error> {
    const HOW: &str = "a handler may outlive its request, so it cannot borrow";
    let mut borrowed = Borrowed::default();
    borrowed.visit_type(ty);
    if let Some(reference) = borrowed.reference {
        let inner = code(&reference.elem);
        let message = format!("{HOW}; write `&'static {inner}`, or an owned type");
        return Some(syn::Error::new_spanned(reference, message));
    }
    let lifetime = borrowed.elided?;
    let message = format!("{HOW}; write `'static`, or an owned type");
    Some(syn::Error::new_spanned(lifetime, message))
}

fn is_static(reference: &TypeReference) -> bool {
    let lifetime = reference.lifetime.as_ref();
    lifetime.is_some_and(|lifetime| lifetime.ident == "static")
}

/// Returns the place of the name of a function that `#[async_trait]` has rewritten.
fn of_async_trait(handler: &Handler) -> Option<Span> {
    let mut lifetimes = handler.sig.generics.lifetimes();
    let is_rewritten = lifetimes.any(|param| param.lifetime.ident == "async_trait");
    is_rewritten.then(|| handler.sig.ident.span())
}
