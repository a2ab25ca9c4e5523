//! Checks the other attributes of the handler.

use syn::Type;

use crate::messages::mistakes::Mistakes;
use crate::messages::words::code;
use crate::parse::handler::Handler;

/// Reports and removes each attribute that runs the function itself, such as `#[tokio::main]`.
pub(crate) fn remove_entry_points(handler: &mut Handler, mistakes: &mut Mistakes) {
    handler.attrs.retain(|attr| {
        let path = attr.path();
        let last = path.segments.last().filter(|_| path.segments.len() > 1);
        let runs = last.is_some_and(|last| last.ident == "main" || last.ident == "test");
        if runs {
            let path = code(path);
            mistakes.at(
                attr.path(),
                format!("`#[{path}]` runs the function itself, but a router runs a handler; remove one of the attributes"),
            );
        }
        !runs
    });
}

/// Reports and removes a second `#[idempotent]` on the same function.
pub(crate) fn remove_second_idempotent(handler: &mut Handler, mistakes: &mut Mistakes) {
    const TWICE: &str = "`#[idempotent]` is given twice; put all arguments into one";
    handler.attrs.retain(|attr| {
        let last = attr.path().segments.last();
        let doubled = last.is_some_and(|segment| segment.ident == "idempotent");
        if doubled {
            mistakes.at(attr.path(), TWICE);
        }
        !doubled
    });
    // A renamed import of the attribute has another name, but its expansion shows in the signature.
    let is_expanded = handler.last().is_some_and(|last| match &last.ty {
        Type::Path(path) => path
            .path
            .segments
            .iter()
            .any(|part| part.ident == "__private"),
        _ => false,
    });
    if is_expanded {
        mistakes.at_span(handler.attribute_span(), TWICE);
    }
}
