//! Reads text that is not an argument, so that one slip of the user gives one message.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::{Expr, Token, token};

use crate::messages::words::code;
use crate::parse::argument_form::{Form, example, is_name};

/// Returns the value of a scope that the user wrote without `scope =`, such as `token`, `user.id` or
/// `(token, user.id)`.
pub(crate) fn value_of_scope(input: ParseStream<'_>) -> Option<Expr> {
    let after = input.fork();
    let begins_a_value = match after.call(Ident::parse_any) {
        Err(_) => input.peek(token::Paren) || input.peek(Token![&]),
        Ok(name) if is_built_in(&name) => !(after.peek(Token![=]) || after.peek(Token![:])),
        Ok(name) => {
            !is_name(&name)
                && (after.peek(Token![.])
                    || after.peek(Token![::])
                    || after.peek(Token![!])
                    || after.peek(token::Bracket))
        }
    };
    let value: Expr = begins_a_value.then(|| input.fork().parse().ok())??;
    // `user.id = 5` and `token + 1` are no scopes that the user may have meant.
    let is_plain = !matches!(value, Expr::Assign(_) | Expr::Binary(_));
    is_plain.then_some(value)
}

fn is_built_in(name: &Ident) -> bool {
    let words = ["token", "global", "header"];
    words.iter().any(|word| name == word)
}

/// Returns the message for a value that belongs to `scope`. `given` is the scope that the user wrote before.
pub(crate) fn as_scope(value: &Expr, given: Option<&Expr>) -> String {
    let written = match value {
        Expr::Path(path) if path.path.is_ident("header") => "header(\"x-workspace-id\")".to_owned(),
        value => code(value),
    };
    let parts = match given {
        None => {
            return format!(
                "`{}` is a value of `scope`; write `scope = {written}`",
                code(value)
            );
        }
        Some(Expr::Tuple(tuple)) => code(&tuple.elems),
        Some(given) => code(given),
    };
    format!("a scope with several parts is a tuple; write `scope = ({parts}, {written})`")
}

/// Returns the message for the tokens of `input`, which follow the argument without a comma.
pub(crate) fn after(name: &Ident, form: &Form, input: ParseStream<'_>) -> String {
    let argument = name.to_string();
    let example = example(&argument);
    match form {
        Form::Alone if example == argument => {
            format!("`{name}` takes no value; write `{name}` alone")
        }
        Form::Alone => {
            let has_own_names = matches!(argument.as_str(), "scope" | "key" | "runtime" | "crate");
            let written = if has_own_names {
                format!("{argument} = {}", code(up_to_comma(input)))
            } else {
                example.to_owned()
            };
            format!("expected `=`; write `{written}`")
        }
        Form::Assigned(value) if example.ends_with(&code(value)) => {
            format!("expected a comma after `{}`", code(value))
        }
        Form::Assigned(_) | Form::Called(_) => {
            format!("expected a comma after the value of `{name}`; for example, write `{example}`")
        }
    }
}

fn up_to_comma(input: ParseStream<'_>) -> TokenStream {
    let rest = input.fork().parse::<TokenStream>().unwrap_or_default();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
    let rest = rest.into_iter().take_while(|token| !is_comma(token));
    rest.flat_map(TokenTree::into_token_stream).collect()
}
