//! Recognizes the types of the request by their names: its key, its attempt, and its headers.

use syn::{GenericArgument, Path, PathArguments, PathSegment, Type};

use crate::parse::patterns::ungrouped;

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

/// Returns whether the type is `IdempotencyKey`, in any module, alone or in a wrapper.
pub(crate) fn is_key(ty: &Type) -> bool {
    is_in_wrappers(ty, &|path| {
        let last = path.segments.last();
        last.is_some_and(|last| last.ident == "IdempotencyKey")
    })
}

/// Returns whether the type is `Attempt`, alone or in a wrapper, and without a module or in the crate that `facade`
/// names.
pub(crate) fn is_attempt(ty: &Type, facade: Option<&Path>) -> bool {
    is_in_wrappers(ty, &|path| {
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
    })
}

/// Returns whether the type is `HeaderMap`, in any module.
pub(crate) fn is_header_map(ty: &Type) -> bool {
    let Type::Path(path) = ungrouped(ty) else {
        return false;
    };
    let last = path.path.segments.last();
    last.is_some_and(|last| last.ident == "HeaderMap")
}

/// Returns whether the type is a wanted one, alone or in a wrapper.
fn is_in_wrappers(ty: &Type, is_wanted: &dyn Fn(&Path) -> bool) -> bool {
    let Type::Path(path) = ungrouped(ty) else {
        return false;
    };
    let inner = path.path.segments.last().filter(|last| {
        let wrappers = ["Option", "Result", "Extension"];
        wrappers.iter().any(|wrapper| last.ident == wrapper)
    });
    let inner = inner.and_then(only_type);
    is_wanted(&path.path) || inner.is_some_and(|inner| is_in_wrappers(inner, is_wanted))
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
    use super::*;

    fn ty(text: &str) -> Type {
        syn::parse_str(text).expect("a type")
    }

    #[test]
    fn a_key_is_found_in_wrappers() {
        for (text, expected) in [
            ("IdempotencyKey", true),
            ("axum_idem::IdempotencyKey", true),
            ("Option<IdempotencyKey>", true),
            ("Result<IdempotencyKey, Problem>", true),
            ("Extension<IdempotencyKey>", true),
            ("String", false),
            ("MyIdempotencyKey", false),
            ("State<Keys<IdempotencyKey>>", false),
        ] {
            assert_eq!(is_key(&ty(text)), expected, "{text}");
        }
    }

    #[test]
    fn an_attempt_of_another_crate_is_another_type() {
        let facade: Path = syn::parse_quote!(crate::idem);
        for (text, expected) in [
            ("Attempt", true),
            ("axum_idem::Attempt", true),
            ("::axum_idem::Attempt", true),
            ("crate::idem::Attempt", true),
            ("Option<Attempt>", true),
            ("crate::exams::Attempt", false),
            ("Attempt<Exam>", false),
            ("LoginAttempt", false),
        ] {
            assert_eq!(is_attempt(&ty(text), Some(&facade)), expected, "{text}");
        }
    }
}
