//! The path of the facade crate in generated code.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::spanned::Spanned as _;

use crate::parse::attribute_args::AttributeArgs;

/// Returns the path of `__private`, the only module of this project that generated code uses.
///
/// The tokens have `span`. With `crate = …`, they have the span of that path, because the user must fix
/// an error there.
pub(crate) fn private(args: &AttributeArgs, span: Span) -> TokenStream {
    match &args.facade {
        None => quote_spanned!(span=> ::axum_idem::__private),
        Some(facade) => quote_spanned!(facade.span()=> #facade::__private),
    }
}
