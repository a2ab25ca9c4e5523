//! Tells by its name whether a type reads the body. What this misses the compiler finds by the types.

use syn::{GenericArgument, Path, PathArguments, Type};

/// They read the body wherever they are from.
const OF_ANY_CRATE: [&str; 6] = [
    "Form",
    "Json",
    "JsonLines",
    "Multipart",
    "Protobuf",
    "RawForm",
];

/// They read the body where they are what they are called.
const WELL_KNOWN: [&str; 6] = ["Body", "Bytes", "BytesMut", "Request", "String", "Vec"];

/// Where those are from.
const THEIR_MODULES: [&str; 12] = [
    "alloc",
    "axum",
    "axum_core",
    "body",
    "bytes",
    "extract",
    "http",
    "hyper",
    "request",
    "std",
    "string",
    "vec",
];

/// The name of the type, where it is one that is known to read the body.
pub(crate) fn body_extractor(ty: &Type) -> Option<String> {
    let Type::Path(path) = ty else { return None };
    let segment = path.path.segments.last()?;
    let name = segment.ident.to_string();
    if matches!(name.as_str(), "Option" | "Result")
        && let PathArguments::AngleBracketed(arguments) = &segment.arguments
        && let Some(GenericArgument::Type(inner)) = arguments.args.first()
    {
        return body_extractor(inner);
    }
    let reads_the_body = OF_ANY_CRATE.contains(&name.as_str())
        || (WELL_KNOWN.contains(&name.as_str()) && is_theirs(&path.path));
    reads_the_body.then_some(name)
}

/// Whether nothing in front of the name says that it is another type of that name.
fn is_theirs(path: &Path) -> bool {
    let mut modules = path.segments.iter().rev().skip(1);
    modules.all(|module| THEIR_MODULES.iter().any(|name| module.ident == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_name_and_place() {
        for (ty, expected) in [
            ("Json<Order>", Some("Json")),
            ("crate::api::Json<Order>", Some("Json")),
            ("axum_extra::extract::Form<Order>", Some("Form")),
            ("Option<axum::Json<Order>>", Some("Json")),
            ("std::result::Result<Bytes, BytesRejection>", Some("Bytes")),
            ("::std::string::String", Some("String")),
            ("axum::http::Request<Body>", Some("Request")),
            ("tracing::Request", None),
            ("User", None),
            ("Path<String>", None),
            ("Option<TypedHeader<Request>>", None),
        ] {
            let ty = syn::parse_str(ty).expect("a type");
            assert_eq!(body_extractor(&ty).as_deref(), expected);
        }
    }
}
