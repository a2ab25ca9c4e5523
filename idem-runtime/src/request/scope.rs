//! The scope of a key, which separates equal keys of different callers.

use std::fmt::{self, Display, Write as _};

use smallvec::SmallVec;

/// The owner of a key. Equal keys in different scopes are independent.
///
/// A scope is a sequence of parts. Each part is stored with its kind and its length, so that no two
/// different scopes have the same bytes. The attribute builds the scope of each request with a key.
/// An operator builds a scope to identify a record:
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum_idem::Scope;
///
/// let as_in_the_attribute = Scope::new().value(42).header("x-workspace-id", "acme");
/// # let _ = as_in_the_attribute;
/// ```
///
/// Write one function that returns a `Scope`, and use it in the attribute and for operators. Then both scopes are always
/// equal, because the attribute takes the parts of a `Scope` unchanged:
///
/// ```
/// use idem_runtime::Scope;
///
/// struct User {
///     id: u64,
/// }
///
/// impl User {
///     /// For `#[idempotent(scope = user.scope())]`, and for operators.
///     fn scope(&self) -> Scope {
///         Scope::new().value(self.id)
///     }
/// }
/// # let _ = User { id: 7 }.scope();
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Scope(SmallVec<[u8; INLINE]>);

/// Enough for most scopes, including tokens. A longer scope needs an allocation.
const INLINE: usize = 96;

const TOKEN: u8 = 1;
const HEADER: u8 = 2;
const VALUE: u8 = 3;

impl Scope {
    /// Returns the empty scope of `scope = global`, which all callers share.
    ///
    /// A function that returns a `Scope` without any part makes its endpoint global: every caller who knows a key gets
    /// its response.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the part of `scope = token`: the value of `Authorization` as the client sent it,
    /// including the scheme.
    #[must_use]
    pub fn token(mut self, authorization: impl AsRef<[u8]>) -> Self {
        self.add_token(authorization.as_ref());
        self
    }

    /// Adds the part of `scope = header("name")`. The name is compared in lower case.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.add_header(name, value.as_ref());
        self
    }

    /// Adds the part of an expression that uses the arguments of the handler.
    ///
    /// # Panics
    ///
    /// If the `Display` implementation of the value returns an error, as `to_string` does.
    #[must_use]
    pub fn value(mut self, value: impl Display) -> Self {
        self.add_value(&value);
        self
    }

    pub(crate) fn add_token(&mut self, authorization: &[u8]) {
        self.push(TOKEN, authorization);
    }

    pub(crate) fn add_header(&mut self, name: &str, value: &[u8]) {
        self.push(HEADER, name.to_ascii_lowercase().as_bytes());
        self.push(HEADER, value);
    }

    pub(crate) fn add_value(&mut self, value: &(impl Display + ?Sized)) {
        let start = self.begin(VALUE);
        write!(self, "{value}").expect("a `Display` implementation returned an error");
        self.end(start);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether everybody shares this scope.
    pub(crate) fn is_global(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, kind: u8, part: &[u8]) {
        let start = self.begin(kind);
        self.0.extend_from_slice(part);
        self.end(start);
    }

    /// Writes the head of a part, and returns the offset of its bytes.
    fn begin(&mut self, kind: u8) -> usize {
        self.0.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.0.len()
    }

    fn end(&mut self, start: usize) {
        let len = (self.0.len() - start) as u64;
        self.0[start - 8..start].copy_from_slice(&len.to_le_bytes());
    }
}

impl fmt::Write for Scope {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Never shows the parts, because they may contain a token.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scope(…)")
    }
}

/// A value that `scope = …` accepts: a [`Scope`], or any type that implements `Display`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a scope, because it does not implement `Display`",
    label = "not `Display`",
    note = "use a field that implements `Display`, such as `user.id`, or implement `Display` for the type"
)]
pub trait ScopeValue {
    /// Adds the parts of this value to `scope`.
    fn add_to(&self, scope: &mut Scope);
}

impl<T: Display + ?Sized> ScopeValue for T {
    fn add_to(&self, scope: &mut Scope) {
        scope.add_value(self);
    }
}

impl ScopeValue for Scope {
    fn add_to(&self, scope: &mut Scope) {
        scope.0.extend_from_slice(&self.0);
    }
}

impl ScopeValue for &Scope {
    fn add_to(&self, scope: &mut Scope) {
        (**self).add_to(scope);
    }
}

/// The reason why a request has no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScopeMissing {
    /// The `Authorization` header is absent, empty or repeated.
    Token,
    /// The header of the scope is absent, empty or repeated.
    Header,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_scope_are_delimited() {
        let scopes = [
            Scope::new(),
            Scope::new().value(""),
            Scope::new().value("ab"),
            Scope::new().value("a").value("b"),
            Scope::new().value("a").value("").value("b"),
            Scope::new().token("ab"),
            Scope::new().header("a", "b"),
            Scope::new().header("ab", ""),
            Scope::new().header("authorization", "ab"),
        ];
        for (i, one) in scopes.iter().enumerate() {
            for other in &scopes[i + 1..] {
                assert_ne!(one.as_bytes(), other.as_bytes());
            }
        }
    }

    #[test]
    fn a_scope_value_that_is_a_scope_adds_its_own_parts() {
        let of_the_user = Scope::new().value(7);
        let mut scope = Scope::new().token("Bearer a");
        of_the_user.add_to(&mut scope);
        assert!(scope == Scope::new().token("Bearer a").value(7));
        let mut printed = Scope::new();
        7.add_to(&mut printed);
        assert!(printed == of_the_user);
    }

    #[test]
    fn debug_output_hides_tokens() {
        let scope = Scope::new().token("Bearer SECRET");
        assert!(!format!("{scope:?}").contains("SECRET"));
    }
}
