//! Parses the annotated function, as far as the attribute needs it.

use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream};
use syn::{
    Attribute, Block, FnArg, Pat, PatType, Receiver, Signature, Stmt, Token, Type, Visibility,
    token,
};

use crate::parse::patterns::{self, is_same};

/// The annotated function. Its body stays as tokens, because an editor completes in a half-typed body
/// too.
pub(crate) struct Handler {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<TokenStream>,
    pub(crate) is_half_typed: bool,
    /// Items that come first in a body stay first in the expansion.
    pub(crate) begins_with_an_item: bool,
}

/// One parameter of the handler.
pub(crate) struct Parameter {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) pat: Pat,
    pub(crate) ty: Type,
    /// The variables that its pattern binds.
    pub(crate) bindings: Vec<Ident>,
    /// Names in capitals in its pattern. They may be constants or variables.
    pub(crate) capitals: Vec<Ident>,
    /// Whether the variables hold all of the value.
    pub(crate) held: bool,
}

impl Handler {
    /// Returns the last parameter, which may read the body.
    pub(crate) fn last(&self) -> Option<&Parameter> {
        self.parameters.last()
    }

    /// Returns all parameters except the last.
    pub(crate) fn head(&self) -> &[Parameter] {
        match self.parameters.split_last() {
            Some((_, head)) => head,
            None => &[],
        }
    }

    /// Returns the place of the attribute, for a mistake that has no token.
    ///
    /// It resolves like the `fn` token, so that the compiler shows it as code that the user wrote.
    pub(crate) fn attribute_span(&self) -> Span {
        Span::call_site().resolved_at(self.sig.fn_token.span)
    }
}

impl Parameter {
    pub(crate) fn binds(&self, name: &Ident) -> bool {
        let mut names = self.bindings.iter().chain(&self.capitals);
        names.any(|bound| is_same(bound, name))
    }
}

impl From<PatType> for Parameter {
    fn from(parameter: PatType) -> Self {
        Self {
            bindings: patterns::bindings(&parameter.pat),
            capitals: patterns::capitals(&parameter.pat),
            held: patterns::holds_everything(&parameter.pat),
            attrs: parameter.attrs,
            pat: *parameter.pat,
            ty: *parameter.ty,
        }
    }
}

impl Parse for Handler {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let sig: Signature = input.parse()?;
        let mut is_half_typed = false;
        let mut begins_with_an_item = false;
        let body = if input.parse::<Option<Token![;]>>()?.is_some() {
            None
        } else {
            let whole = input.fork();
            let body;
            let _: token::Brace = syn::braced!(body in input);
            attrs.extend(Attribute::parse_inner(&body)?.into_iter().map(outer));
            let statements = body.fork().call(Block::parse_within);
            is_half_typed = statements.is_err();
            begins_with_an_item =
                statements.is_ok_and(|body| matches!(body.first(), Some(Stmt::Item(_))));
            let body: TokenStream = body.parse()?;
            // The compiler does not see that the braces belong to another macro.
            if ends_with_a_block(&body) {
                attrs.push(syn::parse_quote!(#[allow(unused_braces)]));
            }
            // The compiler reports a half-typed body. With the user's braces it repeats the same error
            // at the same place, and shows it only once.
            Some(if is_half_typed {
                attrs.push(syn::parse_quote!(#[allow(unused_braces)]));
                whole.parse::<TokenTree>()?.into()
            } else {
                body
            })
        };
        let mut receiver = None;
        let mut parameters = Vec::new();
        for parameter in &sig.inputs {
            match parameter {
                FnArg::Receiver(found) => receiver = Some(found.clone()),
                FnArg::Typed(parameter) => parameters.push(parameter.clone().into()),
            }
        }
        Ok(Self {
            attrs,
            vis,
            sig,
            receiver,
            parameters,
            body,
            is_half_typed,
            begins_with_an_item,
        })
    }
}

fn outer(mut inner: Attribute) -> Attribute {
    inner.style = syn::AttrStyle::Outer;
    inner
}

/// Returns whether the body ends with a block that a `macro_rules` macro passes on as `$body`.
fn ends_with_a_block(body: &TokenStream) -> bool {
    let Some(TokenTree::Group(last)) = body.clone().into_iter().last() else {
        return false;
    };
    let first = last.stream().into_iter().next();
    last.delimiter() == Delimiter::None
        && matches!(first, Some(TokenTree::Group(block)) if block.delimiter() == Delimiter::Brace)
}

/// An item that is not a function.
pub(crate) struct OtherItem {
    pub(crate) name: &'static str,
    pub(crate) token: TokenTree,
    pub(crate) is_expression: bool,
}

/// Returns whether the item may be a function. Another item may contain `fn` too, such as
/// `const PLACE: fn(String) = …`.
fn may_be_a_function(tokens: &[TokenTree]) -> bool {
    const OTHERS: [&str; 5] = ["const", "extern", "let", "static", "type"];
    let words: Vec<String> = tokens
        .iter()
        .filter(|token| matches!(token, TokenTree::Ident(_)))
        .map(ToString::to_string)
        .collect();
    let Some(at) = words.iter().position(|word| word == "fn") else {
        return false;
    };
    let is_qualifier = |word: &String| {
        let qualifiers = [
            "pub", "default", "const", "async", "unsafe", "safe", "extern",
        ];
        qualifiers.iter().any(|qualifier| word == qualifier)
    };
    let before = &words[..at];
    let is_other = |word: &String| OTHERS.iter().any(|other| word == other);
    before.iter().all(is_qualifier) || !before.iter().any(is_other)
}

/// Returns the kind of the item, if the item is not a function.
pub(crate) fn other_item(item: TokenStream) -> Option<OtherItem> {
    const WORDS: [(&str, &str); 14] = [
        ("struct", "a struct"),
        ("enum", "an enum"),
        ("union", "a union"),
        ("impl", "an `impl` block"),
        ("trait", "a trait"),
        ("mod", "a module"),
        ("type", "a type alias"),
        ("static", "a static"),
        ("const", "a constant"),
        ("use", "an import"),
        ("let", "a `let` statement"),
        ("extern", "an `extern` item"),
        ("macro_rules", "a macro"),
        ("!", "the call of a macro"),
    ];
    let tokens: Vec<TokenTree> = item.into_iter().collect();
    if may_be_a_function(&tokens) {
        return None;
    }
    for token in tokens {
        let word = token.to_string();
        let closure = [("|", "a closure")];
        let known = WORDS
            .iter()
            .chain(&closure)
            .find(|(known, _)| *known == word);
        if let Some((_, name)) = known {
            return Some(OtherItem {
                name,
                token,
                is_expression: word == "|",
            });
        }
    }
    None
}
