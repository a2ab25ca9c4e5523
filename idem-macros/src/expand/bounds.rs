//! Adds the bounds that let a handler outlive its request.

use proc_macro2::Ident;
use syn::punctuated::Punctuated;
use syn::{Generics, Path, Token, Type, TypeParamBound, WherePredicate, parse_quote};

/// Adds `Send` and `'static` to the type parameters that lack them, because the handler runs to its end
/// after its client disconnected.
pub(crate) fn outliving(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    let names: Vec<Ident> = generics
        .type_params()
        .map(|param| param.ident.clone())
        .collect();
    for name in names {
        let mut missing: Vec<TypeParamBound> = Vec::new();
        if !has_bound(&generics, &name, "Send") {
            missing.push(parse_quote!(::core::marker::Send));
        }
        if !has_bound(&generics, &name, "'static") {
            missing.push(parse_quote!('static));
        }
        bounds_of(&mut generics, &name, |bounds| bounds.extend(missing));
    }
    generics
}

fn has_bound(generics: &Generics, name: &Ident, wanted: &str) -> bool {
    let inline = generics.type_params().filter(|param| param.ident == *name);
    let inline = inline.flat_map(|param| &param.bounds);
    let clause = generics
        .where_clause
        .iter()
        .flat_map(|clause| &clause.predicates);
    let clause = clause.filter_map(|predicate| match predicate {
        WherePredicate::Type(predicate) if is_type(&predicate.bounded_ty, name) => {
            Some(&predicate.bounds)
        }
        _ => None,
    });
    inline.chain(clause.flatten()).any(|bound| match bound {
        TypeParamBound::Trait(bound) => is_marker(&bound.path, wanted),
        TypeParamBound::Lifetime(lifetime) => lifetime.to_string() == wanted,
        _ => false,
    })
}

/// Returns whether the path is the marker trait, either its name or a path into `core` or `std`.
fn is_marker(path: &Path, name: &str) -> bool {
    let mut segments = path.segments.iter().rev();
    let is_named = segments.next().is_some_and(|last| last.ident == name);
    let mut modules = segments.map(|segment| segment.ident.to_string());
    is_named
        && match modules.next().as_deref() {
            None => true,
            Some("marker") => modules.all(|module| matches!(&*module, "core" | "std")),
            Some(_) => false,
        }
}

/// Changes the bounds that the user wrote, in the `where` clause or else in the list of parameters.
fn bounds_of(generics: &mut Generics, name: &Ident, change: impl FnOnce(&mut Bounds)) {
    let clause = generics
        .where_clause
        .iter_mut()
        .flat_map(|clause| &mut clause.predicates);
    for predicate in clause {
        if let WherePredicate::Type(predicate) = predicate
            && predicate.lifetimes.is_none()
            && is_type(&predicate.bounded_ty, name)
        {
            return change(&mut predicate.bounds);
        }
    }
    if let Some(param) = generics
        .type_params_mut()
        .find(|param| param.ident == *name)
    {
        change(&mut param.bounds);
        // When the compiler suggests another bound, it points behind the colon.
        let colon = Token![:](param.ident.span());
        param.colon_token.get_or_insert(colon);
    }
}

type Bounds = Punctuated<TypeParamBound, Token![+]>;

fn is_type(ty: &Type, name: &Ident) -> bool {
    matches!(ty, Type::Path(path) if path.qself.is_none() && path.path.is_ident(name))
}
