//! Finds the variables that an expression names but does not bind itself.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote_spanned};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, Item, Lit, Macro, Member, Pat, Stmt, Token, Type};

use crate::parse::captures::{captured, variable};
use crate::parse::patterns::{self, is_same};

/// Returns the variables that `value` uses but does not bind.
pub(crate) fn variables(value: &Expr) -> Vec<Ident> {
    found(value).into_iter().map(|(name, _)| name).collect()
}

/// Returns those of the [`variables`] that are certainly not functions or keywords of a macro.
pub(crate) fn values(value: &Expr) -> Vec<Ident> {
    let values = found(value)
        .into_iter()
        .filter(|(_, used)| *used == Use::Value);
    values.map(|(name, _)| name).collect()
}

fn found(value: &Expr) -> Vec<(Ident, Use)> {
    let mut walk = Walk::new(&[]);
    walk.visit_expr_mut(&mut value.clone());
    walk.found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Value,
    Called,
    Token,
}

/// Replaces each name in `references` with `*name`, so that its type is the type of the value.
pub(crate) fn dereferenced(value: &Expr, references: &[Ident]) -> Expr {
    let mut value = value.clone();
    Walk::new(references).visit_expr_mut(&mut value);
    value
}

/// Returns every identifier in `tokens` that may be a variable, and every name that a format string captures.
/// None has its `r#`.
pub(crate) fn mentions(tokens: TokenStream) -> Vec<String> {
    let all: Vec<TokenTree> = tokens.into_iter().collect();
    let mentioned = |(at, token): (usize, &TokenTree)| match token {
        TokenTree::Ident(ident) if !is_member(&all, at) => vec![ident.unraw().to_string()],
        TokenTree::Group(group) => mentions(group.stream()),
        TokenTree::Literal(literal) => captured(&literal.to_string()),
        TokenTree::Ident(_) | TokenTree::Punct(_) => Vec::new(),
    };
    all.iter().enumerate().flat_map(mentioned).collect()
}

/// Returns whether the token is a field or a method, as `id` in `user.id`. In `..id`, it is a variable.
fn is_member(all: &[TokenTree], at: usize) -> bool {
    let is_dot = |at: Option<usize>| {
        let token = at.and_then(|at| all.get(at));
        matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == '.')
    };
    is_dot(at.checked_sub(1)) && !is_dot(at.checked_sub(2))
}

/// Returns whether `tokens` contain `name(…)` or `Self::name(…)`. `desk.name(…)` calls another function.
pub(crate) fn calls(tokens: TokenStream, name: &Ident) -> bool {
    let mut is_member = false;
    tokens.into_iter().any(|token| {
        let calls = match &token {
            TokenTree::Ident(ident) => !is_member && ident == name,
            TokenTree::Group(group) => calls(group.stream(), name),
            _ => false,
        };
        is_member = matches!(token, TokenTree::Punct(punct) if punct.as_char() == '.');
        calls
    })
}

/// Returns whether `tokens` contain `Self`, which exists only in an `impl` block.
pub(crate) fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "Self",
        TokenTree::Group(group) => mentions_self(group.stream()),
        _ => false,
    })
}

/// Walks through an expression, and follows the scoping rules of Rust.
struct Walk<'a> {
    /// The variables that get a `*`.
    references: &'a [Ident],
    /// The names that the expression has bound at this place, innermost last.
    bound: Vec<String>,
    found: Vec<(Ident, Use)>,
}

impl<'a> Walk<'a> {
    fn new(references: &'a [Ident]) -> Self {
        Self {
            references,
            bound: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Records a name that is used at this place, unless the expression binds the name.
    fn is_free(&mut self, name: &Ident, used: Use) -> bool {
        let unraw = name.unraw().to_string();
        let free = !self.bound.contains(&unraw);
        if free {
            self.found.push((name.clone(), used));
        }
        free
    }

    fn path(&mut self, value: &mut Expr, used: Use) -> bool {
        let Expr::Path(path) = value else {
            return false;
        };
        if path.qself.is_none()
            && let Some(name) = path.path.get_ident().cloned()
            && self.is_free(&name, used)
            && self
                .references
                .iter()
                .any(|reference| is_same(reference, &name))
        {
            let span = Span::mixed_site().located_at(name.span());
            *value = Expr::Verbatim(quote_spanned!(span=> (*#name)));
        }
        true
    }

    fn bind(&mut self, pat: &Pat) {
        let names = patterns::bindings(pat);
        self.bound
            .extend(names.iter().map(|name| name.unraw().to_string()));
    }

    /// Calls `walk`, and removes the names that `walk` has bound.
    fn scope(&mut self, walk: impl FnOnce(&mut Self)) {
        let outside = self.bound.len();
        walk(self);
        self.bound.truncate(outside);
    }

    /// Walks through the arguments of a macro of the standard library that takes expressions.
    fn arguments(&mut self, called: &mut Macro) -> bool {
        let parser = Punctuated::<Expr, Token![,]>::parse_terminated;
        let Ok(mut arguments) = parser.parse2(called.tokens.clone()) else {
            return false;
        };
        let mut texts = Vec::new();
        let mut named = Vec::new();
        for argument in &mut arguments {
            match argument {
                // `name = value` in a format macro.
                Expr::Assign(argument) => {
                    if let Expr::Path(name) = &*argument.left
                        && let Some(name) = name.path.get_ident()
                    {
                        named.push(name.unraw().to_string());
                    }
                    self.visit_expr_mut(&mut argument.right);
                }
                Expr::Lit(literal) => {
                    if let Lit::Str(text) = &literal.lit {
                        texts.push((text.token().to_string(), text.span()));
                    }
                }
                argument => self.visit_expr_mut(argument),
            }
        }
        for (text, span) in texts {
            for name in captured(&text) {
                if !named.contains(&name)
                    && let Some(name) = variable(&name, span)
                {
                    self.is_free(&name, Use::Value);
                }
            }
        }
        called.tokens = arguments.into_token_stream();
        true
    }

    /// `matches!(value, pattern if guard)`
    fn matched(&mut self, called: &mut Macro) -> bool {
        let parser = |input: ParseStream<'_>| {
            let value: Expr = input.parse()?;
            let comma: Token![,] = input.parse()?;
            let pat = Pat::parse_multi_with_leading_vert(input)?;
            let guard: Option<(Token![if], Expr)> = match input.parse()? {
                Some(word) => Some((word, input.parse()?)),
                None => None,
            };
            input.parse::<Option<Token![,]>>()?;
            Ok((value, comma, pat, guard))
        };
        let Ok((mut value, comma, pat, mut guard)) = parser.parse2(called.tokens.clone()) else {
            return false;
        };
        self.visit_expr_mut(&mut value);
        self.scope(|walk| {
            walk.bind(&pat);
            if let Some((_, guard)) = &mut guard {
                walk.visit_expr_mut(guard);
            }
        });
        let (word, guard) = guard.unzip();
        called.tokens = quote::quote!(#value #comma #pat #word #guard);
        true
    }
}

impl VisitMut for Walk<'_> {
    fn visit_expr_mut(&mut self, value: &mut Expr) {
        match value {
            Expr::Path(_) => {
                self.path(value, Use::Value);
            }
            Expr::Call(call) => {
                if !self.path(&mut call.func, Use::Called) {
                    self.visit_expr_mut(&mut call.func);
                }
                for argument in &mut call.args {
                    self.visit_expr_mut(argument);
                }
            }
            Expr::Closure(closure) => self.scope(|walk| {
                closure.inputs.iter().for_each(|input| walk.bind(input));
                walk.visit_expr_mut(&mut closure.body);
            }),
            // The names that a condition binds exist only in the branch after it.
            Expr::If(branches) => {
                self.scope(|walk| {
                    walk.visit_expr_mut(&mut branches.cond);
                    walk.visit_block_mut(&mut branches.then_branch);
                });
                if let Some((_, otherwise)) = &mut branches.else_branch {
                    self.visit_expr_mut(otherwise);
                }
            }
            Expr::While(repeated) => self.scope(|walk| {
                walk.visit_expr_mut(&mut repeated.cond);
                walk.visit_block_mut(&mut repeated.body);
            }),
            Expr::Let(condition) => {
                self.visit_expr_mut(&mut condition.expr);
                self.bind(&condition.pat);
            }
            Expr::ForLoop(repeated) => {
                self.visit_expr_mut(&mut repeated.expr);
                self.scope(|walk| {
                    walk.bind(&repeated.pat);
                    walk.visit_block_mut(&mut repeated.body);
                });
            }
            value => visit_mut::visit_expr_mut(self, value),
        }
    }

    fn visit_arm_mut(&mut self, arm: &mut syn::Arm) {
        self.scope(|walk| {
            walk.bind(&arm.pat);
            if let Pat::Guard(guarded) = &mut arm.pat {
                walk.visit_expr_mut(&mut guarded.guard);
            }
            walk.visit_expr_mut(&mut arm.body);
        });
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        self.scope(|walk| {
            let items = block.stmts.iter().filter_map(item_name);
            walk.bound.extend(items);
            for statement in &mut block.stmts {
                walk.visit_stmt_mut(statement);
            }
        });
    }

    fn visit_local_mut(&mut self, local: &mut syn::Local) {
        if let Some(init) = &mut local.init {
            self.visit_expr_mut(&mut init.expr);
            if let Some((_, diverge)) = &mut init.diverge {
                self.visit_expr_mut(diverge);
            }
        }
        self.bind(&local.pat);
    }

    /// `Key { id }` is short for `Key { id: id }`, so a replaced value needs the name of the field.
    fn visit_field_value_mut(&mut self, field: &mut syn::FieldValue) {
        self.visit_expr_mut(&mut field.expr);
        if let (Expr::Verbatim(_), Member::Named(name), None) =
            (&field.expr, &field.member, &field.colon_token)
        {
            field.colon_token = Some(Token![:](name.span()));
        }
    }

    fn visit_macro_mut(&mut self, called: &mut Macro) {
        const OF_EXPRESSIONS: [&str; 8] = [
            "assert",
            "concat",
            "dbg",
            "debug_assert",
            "format",
            "format_args",
            "panic",
            "vec",
        ];
        let name = called.path.segments.last().map(|last| &last.ident);
        let is_known = match name {
            Some(name) if name == "matches" => self.matched(called),
            Some(name) if OF_EXPRESSIONS.iter().any(|known| name == known) => {
                self.arguments(called)
            }
            _ => false,
        };
        if !is_known {
            // The syntax of the macro is unknown, so every identifier counts as a variable.
            tokens(called.tokens.clone(), &mut |name| {
                self.is_free(name, Use::Token);
            });
        }
    }

    // These contain no variables.
    fn visit_item_mut(&mut self, _: &mut Item) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}
    fn visit_pat_mut(&mut self, _: &mut Pat) {}
    fn visit_path_mut(&mut self, _: &mut syn::Path) {}
    fn visit_attribute_mut(&mut self, _: &mut syn::Attribute) {}
}

/// Returns the name of an item among the statements, if the name looks like a variable.
fn item_name(statement: &Stmt) -> Option<String> {
    let Stmt::Item(item) = statement else {
        return None;
    };
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        _ => return None,
    };
    Some(name.unraw().to_string())
}

/// Reports each name in `tokens` that may be a variable.
fn tokens(stream: TokenStream, found: &mut dyn FnMut(&Ident)) {
    let all: Vec<TokenTree> = stream.into_iter().collect();
    let punct = |at: Option<usize>, wanted: char| matches!(at.and_then(|at| all.get(at)), Some(TokenTree::Punct(p)) if p.as_char() == wanted);
    for (at, token) in all.iter().enumerate() {
        let (before, earlier) = (at.checked_sub(1), at.checked_sub(2));
        match token {
            TokenTree::Ident(ident) => {
                let member = is_member(&all, at);
                let in_path = punct(before, ':') && punct(earlier, ':');
                // A name before a colon is a path, a field or a type ascription.
                let names_something_else = punct(Some(at + 1), ':');
                if !(member || in_path || names_something_else) {
                    found(ident);
                }
            }
            TokenTree::Group(group) => tokens(group.stream(), found),
            TokenTree::Literal(literal) => {
                for name in captured(&literal.to_string()) {
                    if let Some(name) = variable(&name, literal.span()) {
                        found(&name);
                    }
                }
            }
            TokenTree::Punct(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let value = syn::parse_str(text).expect("an expression");
        variables(&value).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variables_are_distinguished_from_members_paths_and_text() {
        for (text, expected) in [
            ("user.id", &["user"][..]),
            ("user . account . id", &["user"]),
            ("tenants::of(user)", &["user"]),
            ("Id { value: user.id }", &["user"]),
            ("Id { user }", &["user"]),
            ("a..b", &["a", "b"]),
            ("key(&user, 3)", &["key", "user"]),
            ("format!(\"{}-{}\", user, desk.name)", &["user", "desk"]),
            (
                "format!(\"{user}/{desk:?}/{{no}}/{0}\", x)",
                &["x", "user", "desk"],
            ),
            ("\"{user}\"", &[]),
            ("keyed!(user => \"{desk}\")", &["user", "desk"]),
            ("format!(\"{type}\")", &["r#type"]),
            (
                "format!(\"{price:>width$.digits$}\")",
                &["price", "digits", "width"],
            ),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn names_bound_by_the_expression_are_not_handler_arguments() {
        for (text, expected) in [
            ("user.ids.iter().filter(|body| **body > 1)", &["user"][..]),
            (
                "match user { User { id, .. } if id > 1 => id, other => other.id }",
                &["user"],
            ),
            (
                "if let Some(id) = user.id && id > 1 { id } else { id }",
                &["user", "id"],
            ),
            ("{ let id = id; id }", &["id"]),
            (
                "{ let Some(id) = user else { return id }; id }",
                &["user", "id"],
            ),
            (
                "{ static region: &str = \"eu\"; fn of(x: u8) {} of(region) }",
                &[],
            ),
            ("{ for id in user { id; } id }", &["user", "id"]),
            ("format!(\"{id}{name}\", id = user.id)", &["user", "name"]),
            (
                "matches!(user, User { id } if id > limit)",
                &["user", "limit"],
            ),
            ("vec![user, 1]", &["user"]),
            ("vec![user; n]", &["user", "n"]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn a_method_of_the_same_name_is_another_function() {
        let place = quote::format_ident!("place");
        for (body, expected) in [
            ("desk.place(order).await", false),
            ("Box::pin(place(order)).await", true),
            (
                "match order { Some(order) => Self::place(order), None => () }",
                true,
            ),
            ("places(order)", false),
        ] {
            let body = body.parse().expect("tokens");
            assert_eq!(calls(body, &place), expected);
        }
    }

    #[test]
    fn only_free_references_are_dereferenced() {
        let references = [quote::format_ident!("id")];
        for (text, expected) in [
            ("id", "(* id)"),
            ("user.id(id)", "user . id ((* id))"),
            ("Key { id }", "Key { id : (* id) }"),
            ("|id| id", "| id | id"),
            ("format!(\"{id}\", )", "format ! (\"{id}\" ,)"),
            ("format!(\"{}\", id)", "format ! (\"{}\" , (* id))"),
            ("matches!(id, 1)", "matches ! ((* id) , 1)"),
            ("own!(id)", "own ! (id)"),
        ] {
            let value = syn::parse_str(text).expect("an expression");
            let value = dereferenced(&value, &references).to_token_stream();
            assert_eq!(value.to_string(), expected);
        }
    }
}
