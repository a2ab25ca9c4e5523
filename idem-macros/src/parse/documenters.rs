//! The libraries that document handlers, which the features of the crate turn on.

/// The libraries for which the expansion contains more than the handler needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Documenters {
    /// `aide` reads the types of the handler.
    pub(crate) aide: bool,
    /// `utoipa` reads a `#[utoipa::path]` below the attribute.
    pub(crate) utoipa: bool,
}
