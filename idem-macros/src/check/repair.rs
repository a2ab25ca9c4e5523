//! What a handler with mistakes needs so that the rest of the crate still compiles.

/// What a handler with mistakes needs so that its router still accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Nothing: the function compiles as the user wrote it.
    AsWritten,
    /// `async` is added; `const`, `unsafe` and `extern` are removed.
    Qualifiers,
    /// No handler can have its parameters or its return type. A handler without parameters takes its
    /// place, and contains the function as the user wrote it.
    Stub,
    /// The function has neither arguments nor a body, because the compiler would report the signature too.
    Empty,
}
