//! Recognizes arguments that belong to the operation and not to its caller: the key of the request, and the attempt.

use proc_macro2::Ident;
use syn::{GenericArgument, Pat, Path, PathArguments, PathSegment, Type};

use crate::parse::patterns::{bindings, ungrouped};

/// Whether an argument that is the key may be absent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    /// `IdempotencyKey`
    Always,
    /// `Option<IdempotencyKey>`
    Maybe,
}

/// Returns which of the two types `ty` is. `None` for any other type.
pub(crate) fn key_type(ty: &Type) -> Option<KeyType> {
    let Type::Path(path) = ungrouped(ty) else {
        return None;
    };
    let segment = path.path.segments.last()?;
    if segment.ident == "IdempotencyKey" {
        return Some(KeyType::Always);
    }
    let inner = only_type(segment).filter(|_| segment.ident == "Option")?;
    key_type(inner).map(|_| KeyType::Maybe)
}

/// Returns whether the path is `Attempt`, alone or in the crate that `facade` names.
pub(crate) fn is_attempt(path: &Path, facade: Option<&Path>) -> bool {
    let Some(last) = path.segments.last() else {
        return false;
    };
    let modules = || path.segments.iter().rev().skip(1).map(|it| &it.ident);
    let of_facade = || {
        let facade = facade.iter().flat_map(|path| path.segments.iter().rev());
        modules().eq(facade.map(|it| &it.ident))
    };
    let is_ours = modules().next().is_none() || modules().eq(["axum_idem"]) || of_facade();
    last.ident == "Attempt" && last.arguments.is_none() && is_ours
}

/// Returns whether the path is `IdempotencyKey`, in any module.
pub(crate) fn is_key(path: &Path) -> bool {
    let last = path.segments.last();
    last.is_some_and(|last| last.ident == "IdempotencyKey")
}

/// Returns the variables of the pattern whose type is wanted, as far as the pattern and the type show it. An example is
/// `key` in `(key, user): (Option<IdempotencyKey>, User)`.
pub(crate) fn variables_of(pat: &Pat, ty: &Type, is_wanted: &dyn Fn(&Path) -> bool) -> Vec<Ident> {
    let ty = ungrouped(ty);
    if let (Pat::Tuple(pat), Type::Tuple(ty)) = (pat, ty) {
        let each = pat.elems.iter().zip(&ty.elems);
        // After `..`, a pattern and the type at its place do not belong together.
        let each = each.take_while(|(pat, _)| !matches!(pat, Pat::Rest(_)));
        return each
            .flat_map(|(pat, ty)| variables_of(pat, ty, is_wanted))
            .collect();
    }
    if let Pat::Paren(pat) = pat {
        return variables_of(&pat.pat, ty, is_wanted);
    }
    if is_type(ty, is_wanted) {
        return bindings(pat);
    }
    Vec::new()
}

/// Returns whether the type is a wanted one, alone or in a wrapper.
fn is_type(ty: &Type, is_wanted: &dyn Fn(&Path) -> bool) -> bool {
    let Type::Path(path) = ungrouped(ty) else {
        return false;
    };
    let inner = path.path.segments.last().filter(|last| {
        let wrappers = ["Option", "Result", "Extension"];
        wrappers.iter().any(|wrapper| last.ident == wrapper)
    });
    is_wanted(&path.path)
        || inner
            .and_then(only_type)
            .is_some_and(|inner| is_type(inner, is_wanted))
}

/// Returns the first type in the angle brackets of the segment.
fn only_type(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) => Some(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use quote::ToTokens as _;
    use syn::parse::Parser as _;

    use super::*;

    fn found(pat: &str, ty: &str, is_wanted: &dyn Fn(&Path) -> bool) -> Vec<String> {
        let pat = Pat::parse_single.parse_str(pat).expect("a pattern");
        let ty: Type = syn::parse_str(ty).expect("a type");
        let found = variables_of(&pat, &ty, is_wanted);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variables_of_a_key_are_found_in_tuples_and_wrappers() {
        for (pat, ty, expected) in [
            ("key", "IdempotencyKey", &["key"][..]),
            ("mut key", "axum_idem::IdempotencyKey", &["key"]),
            ("key", "Option<IdempotencyKey>", &["key"]),
            ("key", "Result<IdempotencyKey, Problem>", &["key"]),
            ("Extension(key)", "Extension<IdempotencyKey>", &["key"]),
            ("(user, (key, _))", "(User, (IdempotencyKey, Ip))", &["key"]),
            ("(.., id)", "(IdempotencyKey, Path<u64>)", &[]),
            ("key", "String", &[]),
            ("key", "MyIdempotencyKey", &[]),
            ("State(keys)", "State<Keys<IdempotencyKey>>", &[]),
        ] {
            assert_eq!(found(pat, ty, &is_key), expected, "{pat}: {ty}");
        }
    }

    #[test]
    fn an_attempt_of_another_crate_is_another_type() {
        let facade: Path = syn::parse_quote!(crate::idem);
        for (ty, expected) in [
            ("Attempt", true),
            ("axum_idem::Attempt", true),
            ("::axum_idem::Attempt", true),
            ("crate::idem::Attempt", true),
            ("Option<Attempt>", true),
            ("crate::exams::Attempt", false),
            ("Attempt<Exam>", false),
            ("LoginAttempt", false),
        ] {
            let wanted = |path: &Path| is_attempt(path, Some(&facade));
            let found = found("attempt", ty, &wanted);
            assert_eq!(!found.is_empty(), expected, "{ty}");
        }
        assert_eq!(facade.to_token_stream().to_string(), "crate :: idem");
    }
}
