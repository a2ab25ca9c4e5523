//! Finds the variables that a format string captures.

use proc_macro2::{Ident, Span};

/// Returns the names that a format string captures, such as `user` in `format!("{user}")`.
pub(crate) fn captured(literal: &str) -> Vec<String> {
    let unescaped = literal.replace("{{", "");
    let is_in_word = |c: char| c.is_alphanumeric() || c == '_';
    let holes = unescaped.split('{').skip(1).flat_map(|hole| {
        let hole = hole.split('}').next().unwrap_or_default();
        let (name, format) = hole.split_once(':').unwrap_or((hole, ""));
        let name = name.split(|c| !is_in_word(c)).next();
        // `{price:width$}` captures `width` too.
        let counts = format.split('$').rev().skip(1);
        let counts = counts.filter_map(move |text| text.rsplit(|c| !is_in_word(c)).next());
        name.into_iter().chain(counts)
    });
    let names = holes.filter(|name| variable(name, Span::call_site()).is_some());
    names.map(ToOwned::to_owned).collect()
}

/// Returns the variable of this name. A format string captures `r#type` as `{type}`.
pub(crate) fn variable(name: &str, span: Span) -> Option<Ident> {
    let mut name = match (syn::parse_str::<Ident>(name), name) {
        (Ok(name), _) => name,
        (Err(_), "self" | "Self" | "super" | "crate" | "_") => return None,
        (Err(_), name) => syn::parse_str(&format!("r#{name}")).ok()?,
    };
    name.set_span(span);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::captured;

    #[test]
    fn captured_names_are_found() {
        for (text, expected) in [
            ("{user}/{desk:?}/{{no}}/{0}", &["user", "desk"][..]),
            ("{price:>width$.digits$}", &["price", "digits", "width"]),
            ("{price:1$}", &["price"]),
            ("{type}", &["type"]),
            // The macro of a user may take a field.
            ("{user.name}", &["user"]),
        ] {
            assert_eq!(captured(text), expected, "{text}");
        }
    }
}
