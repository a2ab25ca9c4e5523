//! Finds the variables that an expression may name.

use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};

/// The names in `tokens` that can be variables, each with its place.
///
/// Found by tokens, for a macro's arguments have no other shape; too many rather than too few.
pub(crate) fn variables(tokens: TokenStream) -> Vec<Ident> {
    let mut found = Vec::new();
    collect(tokens, false, &mut found);
    found
}

/// Whether `Self` is named, which only an `impl` block knows.
pub(crate) fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "Self",
        TokenTree::Group(group) => mentions_self(group.stream()),
        _ => false,
    })
}

fn collect(tokens: TokenStream, in_macro: bool, found: &mut Vec<Ident>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let punct = |at: Option<usize>, wanted: char| matches!(at.and_then(|at| tokens.get(at)), Some(TokenTree::Punct(p)) if p.as_char() == wanted);
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1);
        let earlier = at.checked_sub(2);
        match token {
            TokenTree::Ident(ident) => {
                let member = punct(before, '.') && !punct(earlier, '.');
                let in_path = punct(before, ':') && punct(earlier, ':');
                // Followed by a colon it is a path, a field or a type ascription.
                let names_something_else = punct(Some(at + 1), ':');
                if !(member || in_path || names_something_else) {
                    found.push(ident.clone());
                }
            }
            TokenTree::Group(group) => {
                let called = punct(before, '!')
                    && matches!(earlier.map(|at| &tokens[at]), Some(TokenTree::Ident(_)));
                let in_macro = called || (in_macro && group.delimiter() != Delimiter::Brace);
                collect(group.stream(), in_macro, found);
            }
            TokenTree::Literal(literal) if in_macro => {
                captured(&literal.to_string(), literal.span(), found);
            }
            _ => {}
        }
    }
}

/// The `user` of `format!("{user}")`.
fn captured(literal: &str, span: Span, found: &mut Vec<Ident>) {
    let unescaped = literal.replace("{{", "");
    for hole in unescaped.split('{').skip(1) {
        let name = hole
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next();
        if let Some(name) = name
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && syn::parse_str::<Ident>(name).is_ok()
        {
            found.push(Ident::new(name, span));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_from_members_paths_and_text() {
        for (text, expected) in [
            ("user.id", &["user"][..]),
            ("user . account . id", &["user"]),
            ("tenants::of(user)", &["user"]),
            ("Id { value: user.id }", &["Id", "user"]),
            ("a..b", &["a", "b"]),
            ("key(&user, 3)", &["key", "user"]),
            (
                "format!(\"{}-{}\", user, desk.name)",
                &["format", "user", "desk"],
            ),
            (
                "format!(\"{user}/{desk:?}/{{no}}/{0}\", x)",
                &["format", "user", "desk", "x"],
            ),
            ("\"{user}\"", &[]),
        ] {
            let found: Vec<_> = variables(text.parse().expect("tokens"))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
