//! Recognizes an argument that is the key of the request.

use syn::{GenericArgument, PathArguments, Type};

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
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) if segment.ident == "Option" => {
            key_type(inner).map(|_| KeyType::Maybe)
        }
        _ => None,
    }
}
