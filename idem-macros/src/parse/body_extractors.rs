//! Recognizes body extractors by name. The compiler finds all others by their types.

use syn::{GenericArgument, Path, PathArguments, Type};

use crate::parse::patterns::ungrouped;

/// Body extractors, from any module.
const OF_ANY_CRATE: [&str; 6] = [
    "Form",
    "Json",
    "JsonLines",
    "Multipart",
    "Protobuf",
    "RawForm",
];

/// Body extractors that are always written with the type that they read. Without one, the name is another type.
const NEEDING_A_TYPE: [&str; 5] = ["Form", "Json", "JsonLines", "Protobuf", "Vec"];

/// Body extractors, if the path leads to the well-known type of that name.
const WELL_KNOWN: [&str; 6] = ["Body", "Bytes", "BytesMut", "Request", "String", "Vec"];

/// The modules that contain the well-known types.
const MODULES_OF_WELL_KNOWN: [&str; 12] = [
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

/// Returns the name of the type, if the type is a known body extractor.
pub(crate) fn body_extractor(ty: &Type) -> Option<String> {
    let Type::Path(path) = ungrouped(ty) else {
        return None;
    };
    let segment = path.path.segments.last()?;
    let name = segment.ident.to_string();
    if matches!(name.as_str(), "Option" | "Result")
        && let PathArguments::AngleBracketed(arguments) = &segment.arguments
        && let Some(GenericArgument::Type(inner)) = arguments.args.first()
    {
        return body_extractor(inner);
    }
    // The well-known types of these names have a type parameter without a default.
    if NEEDING_A_TYPE.contains(&name.as_str()) && segment.arguments.is_none() {
        return None;
    }
    let reads_the_body = OF_ANY_CRATE.contains(&name.as_str())
        || (WELL_KNOWN.contains(&name.as_str()) && may_be_well_known(&path.path));
    reads_the_body.then_some(name)
}

/// Returns the end of a message about a type whose name may be misleading.
pub(crate) fn own_type(name: &str) -> String {
    if ["Bytes", "BytesMut", "String", "Vec"].contains(&name) {
        return String::new();
    }
    format!("; if this `{name}` is your own type, import it under another name")
}

/// Returns whether every module in the path may contain a well-known type.
fn may_be_well_known(path: &Path) -> bool {
    let mut modules = path.segments.iter().rev().skip(1);
    modules.all(|module| {
        MODULES_OF_WELL_KNOWN
            .iter()
            .any(|name| module.ident == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_extractors_are_recognized_by_name_and_module() {
        for (ty, expected) in [
            ("Json<Order>", Some("Json")),
            ("crate::api::Json<Order>", Some("Json")),
            ("axum_extra::extract::Form<Order>", Some("Form")),
            ("Option<axum::Json<Order>>", Some("Json")),
            ("std::result::Result<Bytes, BytesRejection>", Some("Bytes")),
            ("::std::string::String", Some("String")),
            ("axum::http::Request<Body>", Some("Request")),
            ("tracing::Request", None),
            ("Json", None),
            ("crate::Form", None),
            ("User", None),
            ("Path<String>", None),
            ("Option<TypedHeader<Request>>", None),
        ] {
            let ty = syn::parse_str(ty).expect("a type");
            assert_eq!(body_extractor(&ty).as_deref(), expected);
        }
    }
}
