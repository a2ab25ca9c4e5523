//! Parses the form of one argument: a name, optionally with `=` and a value.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::parse::discouraged::Speculative as _;
use syn::{Expr, Lifetime, Token, token};

pub(super) const NAMES: [&str; 15] = [
    "scope",
    "key",
    "ttl",
    "required",
    "record",
    "record_rejections",
    "record_body",
    "in_flight",
    "on_unknown",
    "unknown",
    "max_run",
    "fingerprint",
    "transactional",
    "runtime",
    "crate",
];

/// Parses a word, which may be a keyword. A raw word such as `r#scope` is the plain word.
pub(super) fn word(input: ParseStream<'_>) -> syn::Result<Ident> {
    input.call(Ident::parse_any).map(|word| word.unraw())
}

/// Returns whether the word is the name of an argument.
pub(super) fn is_name(name: &Ident) -> bool {
    let name = name.unraw();
    NAMES.iter().any(|known| name == known)
}

/// The form in which the user wrote an argument.
pub(crate) enum Form {
    /// `required`
    Alone,
    /// `ttl = …`
    Assigned(Box<Expr>),
    /// `ttl(…)`
    Called(token::Paren),
}

/// Parses the tokens after the name of an argument.
pub(crate) fn form(name: &Ident, input: ParseStream<'_>) -> syn::Result<Form> {
    if input.peek(token::Paren) {
        let content;
        let paren = syn::parenthesized!(content in input);
        content.parse::<TokenStream>()?;
        return Ok(Form::Called(paren));
    }
    if input.peek(Token![:]) {
        let message = format!("expected `=`; write `{}`", example(&name.to_string()));
        return Err(input.error(message));
    }
    let Some(equals) = input.parse::<Option<Token![=]>>()? else {
        return Ok(Form::Alone);
    };
    if input.is_empty() || input.peek(Token![,]) {
        let message = format!(
            "`{name}` has no value; write `{}`",
            example(&name.to_string())
        );
        return Err(syn::Error::new(equals.span, message));
    }
    if input.peek(Lifetime) && !input.peek2(Token![:]) {
        let lifetime: Lifetime = input.parse()?;
        let example = example(&name.to_string());
        let message = format!(
            "cannot parse the value of `{name}`: unexpected lifetime; for example, write `{example}`"
        );
        return Err(syn::Error::new_spanned(lifetime, message));
    }
    let last = last_token(input);
    // Parses a fork, because `syn` would report a partly parsed group of `input` a second time.
    let value = input.fork();
    match value.parse() {
        Ok(expression) => {
            input.advance_to(&value);
            Ok(Form::Assigned(Box::new(ungrouped(expression))))
        }
        Err(error) => {
            let example = example(&name.to_string());
            let message = format!(
                "cannot parse the value of `{name}`: {error}; for example, write `{example}`"
            );
            // If the text ends too early, the last token is the only token to point at.
            let span = match last {
                Some(last) if error.to_string().starts_with("unexpected end") => last,
                _ => error.span(),
            };
            Err(syn::Error::new(span, message))
        }
    }
}

/// Returns the place of the last token of the next value.
fn last_token(input: ParseStream<'_>) -> Option<Span> {
    let rest = input.fork().parse::<TokenStream>().ok()?;
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
    let value = rest.into_iter().take_while(|token| !is_comma(token));
    value.last().map(|token| match token {
        TokenTree::Group(group) => group.span_close(),
        token => token.span(),
    })
}

/// Removes the invisible groups in which a `macro_rules` macro passes on an expression.
fn ungrouped(value: Expr) -> Expr {
    match value {
        Expr::Group(group) => ungrouped(*group.expr),
        Expr::Call(mut call) => {
            call.args = call.args.into_iter().map(ungrouped).collect();
            Expr::Call(call)
        }
        Expr::Array(mut list) => {
            list.elems = list.elems.into_iter().map(ungrouped).collect();
            Expr::Array(list)
        }
        Expr::Tuple(mut tuple) => {
            tuple.elems = tuple.elems.into_iter().map(ungrouped).collect();
            Expr::Tuple(tuple)
        }
        value => value,
    }
}

/// Parses the rest of a name that the user wrote with hyphens.
pub(crate) fn with_underscores(first: &Ident, input: ParseStream<'_>) -> Ident {
    let mut name = first.to_string();
    while input.parse::<Token![-]>().is_ok() {
        let Ok(next) = word(input) else {
            break;
        };
        name = format!("{name}_{next}");
    }
    Ident::new(&name, first.span())
}

/// Returns an example of the argument, for a message.
pub(crate) fn example(argument: &str) -> &'static str {
    match argument {
        "scope" => "scope = token",
        "key" => "key = header(\"x-github-delivery\")",
        "ttl" => "ttl = \"24h\"",
        "required" => "required",
        "record" => "record = [2xx, 4xx]",
        "record_rejections" => "record_rejections",
        "record_body" => "record_body = none",
        "in_flight" => "in_flight = wait(\"5s\")",
        "on_unknown" => "on_unknown = hold",
        "transactional" => "transactional",
        "unknown" => "unknown = [502, 504]",
        "max_run" => "max_run = \"15m\"",
        "fingerprint" => "fingerprint = json",
        "runtime" => "runtime = desk.idempotency",
        _ => "crate = ::axum_idem",
    }
}
