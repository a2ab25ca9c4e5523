//! Finds the names that the patterns of a handler's parameters bind.

use proc_macro2::Ident;
use syn::ext::IdentExt as _;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{FieldPat, GenericArgument, Pat, PatIdent, PatWild, PathArguments, Type};

/// Returns the variables that a pattern binds, each once.
pub(crate) fn bindings(pat: &Pat) -> Vec<Ident> {
    names(pat, |name| !is_constant(name))
}

/// Returns the names in a pattern that look like constants, each once.
pub(crate) fn capitals(pat: &Pat) -> Vec<Ident> {
    names(pat, is_constant)
}

/// Returns the variables that a pattern binds by `ref`.
pub(crate) fn references(pat: &Pat) -> Vec<Ident> {
    names(pat, |name| name.by_ref.is_some())
}

fn names(pat: &Pat, wanted: fn(&PatIdent) -> bool) -> Vec<Ident> {
    struct Names(fn(&PatIdent) -> bool, Vec<Ident>);
    impl Visit<'_> for Names {
        fn visit_pat_ident(&mut self, pat: &PatIdent) {
            if (self.0)(pat) && !self.1.contains(&pat.ident) {
                self.1.push(pat.ident.clone());
            }
            visit::visit_pat_ident(self, pat);
        }
        // The guard of a pattern binds no variables.
        fn visit_expr(&mut self, _: &syn::Expr) {}
    }
    let mut names = Names(wanted, Vec::new());
    names.visit_pat(pat);
    names.1
}

/// Returns the variables that are references in the body, because their pattern takes a reference apart. An
/// example is `tenant` in `State(App { tenant, .. }): State<&'static App>`.
pub(crate) fn behind_references(pat: &Pat, ty: &Type) -> Vec<Ident> {
    match (pat, ungrouped(ty)) {
        (Pat::Paren(pat), ty) => behind_references(&pat.pat, ty),
        (
            Pat::Struct(_) | Pat::Tuple(_) | Pat::TupleStruct(_) | Pat::Slice(_),
            Type::Reference(_),
        ) => bindings(pat),
        (Pat::Tuple(pat), Type::Tuple(ty)) if pat.elems.len() == ty.elems.len() => {
            let each = pat.elems.iter().zip(&ty.elems);
            each.flat_map(|(pat, ty)| behind_references(pat, ty))
                .collect()
        }
        (Pat::TupleStruct(pat), Type::Path(ty)) if pat.elems.len() == 1 => {
            let last = ty.path.segments.last().map(|last| &last.arguments);
            match last {
                Some(PathArguments::AngleBracketed(arguments)) if arguments.args.len() == 1 => {
                    match &arguments.args[0] {
                        GenericArgument::Type(ty) => behind_references(&pat.elems[0], ty),
                        _ => Vec::new(),
                    }
                }
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// Returns the variables of the pattern whose type is wanted, as far as the pattern and the type show it. An example is
/// `key` in `(key, user): (Option<IdempotencyKey>, User)`.
pub(crate) fn variables_of(pat: &Pat, ty: &Type, is_wanted: &dyn Fn(&Type) -> bool) -> Vec<Ident> {
    match (pat, ungrouped(ty)) {
        (Pat::Paren(pat), ty) => variables_of(&pat.pat, ty, is_wanted),
        (Pat::Tuple(pat), Type::Tuple(ty)) => {
            let each = pat.elems.iter().zip(&ty.elems);
            // After `..`, a pattern and the type at its place do not belong together.
            each.take_while(|(pat, _)| !matches!(pat, Pat::Rest(_)))
                .flat_map(|(pat, ty)| variables_of(pat, ty, is_wanted))
                .collect()
        }
        (pat, ty) if is_wanted(ty) => bindings(pat),
        _ => Vec::new(),
    }
}

/// Returns the type without the invisible groups in which a `macro_rules` macro passes on a type.
pub(crate) fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungrouped(&group.elem),
        Type::Paren(group) => ungrouped(&group.elem),
        ty => ty,
    }
}

/// Returns whether the pattern binds a variable by `ref mut`, which requires a `mut` place.
pub(crate) fn borrows_mutably(pat: &Pat) -> bool {
    let wanted = |name: &PatIdent| name.by_ref.is_some() && name.mutability.is_some();
    !names(pat, wanted).is_empty()
}

/// Returns whether the pattern binds a `mut` variable.
pub(crate) fn is_mutable(pat: &Pat) -> bool {
    let wanted = |name: &PatIdent| name.by_ref.is_none() && name.mutability.is_some();
    !names(pat, wanted).is_empty()
}

/// Returns whether the variables of the pattern hold the whole value. Moving them then moves the value.
///
/// Other patterns leave a part of the value behind: the permit of `_: Permit`, or the other fields of
/// `User { id, .. }`.
pub(crate) fn holds_everything(pat: &Pat) -> bool {
    match pat {
        Pat::Ident(pat) => pat.by_ref.is_none() && pat.subpat.is_none() && !is_constant(pat),
        Pat::Paren(pat) => holds_everything(&pat.pat),
        Pat::Tuple(pat) => pat.elems.iter().all(holds_everything),
        Pat::TupleStruct(pat) => {
            // These may not match. The compiler reports that, as it does for a `let`.
            let refutable = ["Some", "Ok", "Err"]
                .iter()
                .any(|name| pat.path.is_ident(name));
            !refutable && !pat.elems.is_empty() && pat.elems.iter().all(holds_everything)
        }
        Pat::Struct(pat) => {
            pat.rest.is_none()
                && !pat.fields.is_empty()
                // A field may be absent under a `#[cfg]`.
                && (pat.fields.iter()).all(|field| field.attrs.is_empty() && holds_everything(&field.pat))
        }
        _ => false,
    }
}

/// Changes the pattern to match a reference: removes `&`, `ref`, `mut`, and the variables that are not wanted.
pub(crate) fn by_reference(pat: &Pat, wanted: &[Ident]) -> Pat {
    struct Clean<'a>(&'a [Ident]);
    impl VisitMut for Clean<'_> {
        fn visit_pat_mut(&mut self, pat: &mut Pat) {
            visit_mut::visit_pat_mut(self, pat);
            // The pattern matches a reference to the whole value, so no part of the value is a reference to match.
            if let Pat::Reference(inner) = pat {
                *pat = (*inner.pat).clone();
            }
            let Pat::Ident(inner) = pat else { return };
            inner.by_ref = None;
            inner.mutability = None;
            let is_wanted = self.0.iter().any(|wanted| is_same(wanted, &inner.ident));
            if !is_constant(inner) && !is_wanted {
                *pat = match inner.subpat.take() {
                    Some((_, pat)) => *pat,
                    None => Pat::Wild(PatWild {
                        attrs: Vec::new(),
                        underscore_token: syn::Token![_](inner.ident.span()),
                    }),
                };
            }
        }

        fn visit_field_pat_mut(&mut self, field: &mut FieldPat) {
            visit_mut::visit_field_pat_mut(self, field);
            if field.colon_token.is_none() && !matches!(*field.pat, Pat::Ident(_)) {
                field.colon_token = Some(syn::Token![:](proc_macro2::Span::call_site()));
            }
        }
    }
    let mut pat = pat.clone();
    Clean(wanted).visit_pat_mut(&mut pat);
    pat
}

/// Returns whether the name looks like a constant or a unit struct. The first letter decides, as in the
/// lints of the compiler.
pub(crate) fn is_constant(pat: &PatIdent) -> bool {
    let name = pat.ident.to_string();
    let first = name.trim_start_matches("r#").chars().next();
    first.is_some_and(char::is_uppercase)
}

/// Returns whether both are one variable: `user` and `r#user` are.
pub(crate) fn is_same(a: &Ident, b: &Ident) -> bool {
    a.unraw() == b.unraw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::ToTokens;
    use syn::parse::Parser;

    fn pat(text: &str) -> Pat {
        Pat::parse_single.parse_str(text).expect("a pattern")
    }

    #[test]
    fn patterns_that_hold_the_whole_value_are_recognized() {
        for text in [
            "desk",
            "mut desk",
            "_desk",
            "State(desk)",
            "Path((account, mut order))",
            "(a, (b, c))",
            "()",
            "User { id, name: called }",
        ] {
            assert!(holds_everything(&pat(text)), "{text}");
        }
        for text in [
            "_",
            "State(_)",
            "State(..)",
            "(a, ..)",
            "User { id, .. }",
            "User {}",
            "Guard()",
            "ref desk",
            "State(ref desk)",
            "all @ User { id, .. }",
            "Marker",
            "Some(user)",
            "[a, b]",
            "User { id, #[cfg(test)] trace }",
        ] {
            assert!(!holds_everything(&pat(text)), "{text}");
        }
    }

    #[test]
    fn bindings_contain_only_variables() {
        let names: Vec<_> = bindings(&pat(
            "User { id, name: ref called, kind: Kind::A, at: x @ Y }",
        ))
        .iter()
        .map(ToString::to_string)
        .collect();
        assert_eq!(names, ["id", "called", "x"]);
    }

    #[test]
    fn fields_of_a_reference_are_references() {
        for (text, ty, expected) in [
            (
                "State(App { tenant, .. })",
                "State<&'static App>",
                &["tenant"][..],
            ),
            ("State(App { tenant, .. })", "State<App>", &[]),
            ("State(&App { tenant, .. })", "State<&'static App>", &[]),
            ("State(app)", "State<&'static App>", &[]),
            (
                "(State(App(tenant)), id)",
                "(State<&'static App>, Id)",
                &["tenant"],
            ),
        ] {
            let ty = syn::parse_str(ty).expect("a type");
            assert_eq!(
                behind_references(&pat(text), &ty),
                expected,
                "{text}: {}",
                ty.to_token_stream()
            );
        }
    }

    #[test]
    fn variables_of_a_type_are_found_in_tuples() {
        let is_key = |ty: &Type| ty.to_token_stream().to_string() == "Key";
        for (text, ty, expected) in [
            ("key", "Key", &["key"][..]),
            ("mut key", "Key", &["key"]),
            ("(key)", "(Key)", &["key"]),
            ("Key(key)", "Key", &["key"]),
            ("(user, (key, _))", "(User, (Key, Ip))", &["key"]),
            ("(.., id)", "(Key, Path<u64>)", &[]),
            ("key", "String", &[]),
        ] {
            let ty = syn::parse_str(ty).expect("a type");
            assert_eq!(variables_of(&pat(text), &ty, &is_key), expected, "{text}");
        }
    }

    #[test]
    fn a_pattern_by_reference_binds_only_the_wanted_names() {
        let wanted = [quote::format_ident!("id"), quote::format_ident!("all")];
        for (text, expected) in [
            ("User { mut id, name, .. }", "User { id , name : _ , .. }"),
            ("all @ User { .. }", "all @ User { .. }"),
            ("whole @ User { ref id , .. }", "User { id , .. }"),
            ("(_, id)", "(_ , id)"),
            (
                "State(&User { id, name, .. })",
                "State (User { id , name : _ , .. })",
            ),
        ] {
            let clean = by_reference(&pat(text), &wanted)
                .to_token_stream()
                .to_string();
            assert_eq!(clean, expected);
        }
    }
}
