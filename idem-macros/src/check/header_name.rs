//! Checks `header("…")`, in the value of `scope` or of `key`.

use syn::{Expr, ExprCall, Lit, LitStr};

/// Returns the name in `header("…")`. `example` is a name for a message.
pub(crate) fn header_name(call: &ExprCall, example: &str) -> syn::Result<LitStr> {
    let how = format!("`header` takes one header name in quotes; write `header(\"{example}\")`");
    let (1, Some(Expr::Lit(literal))) = (call.args.len(), call.args.first()) else {
        return Err(syn::Error::new_spanned(call, how));
    };
    let Lit::Str(name) = &literal.lit else {
        return Err(syn::Error::new_spanned(literal, how));
    };
    let value = name.value();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if value.is_empty() {
        return Err(syn::Error::new_spanned(name, how));
    }
    if !value.bytes().all(is_token) {
        return Err(syn::Error::new_spanned(
            name,
            format!(
                "`{value}` is not a valid name of a header; use letters, digits and `-`, such as `\"{example}\"`"
            ),
        ));
    }
    Ok(name.clone())
}

/// Returns the mistake of an expression that is the value of the header `name`, because a `HeaderValue` does not implement
/// `Display`.
pub(crate) fn not_display(value: &Expr, name: &LitStr) -> syn::Error {
    let name = name.value();
    let message =
        format!("the value of a header does not implement `Display`; write `header(\"{name}\")`");
    syn::Error::new_spanned(value, message)
}
