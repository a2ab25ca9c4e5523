//! The path of the facade crate in generated code.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::spanned::Spanned as _;

use crate::parse::attribute_args::AttributeArgs;

/// The path of `__private`, which is all that generated code names.
///
/// Its tokens have `span`, or the span of the path in `crate = …`, because an error in that path is the
/// user's to mend.
pub(crate) fn private(args: &AttributeArgs, span: Span) -> TokenStream {
    match &args.facade {
        None => quote_spanned!(span=> ::axum_idem::__private),
        Some(facade) => quote_spanned!(facade.span()=> #facade::__private),
    }
}
