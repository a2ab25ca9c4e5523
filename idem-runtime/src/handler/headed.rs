//! The last argument of a handler, when the scope uses that argument.

use std::fmt;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};

use crate::handler::deferred::{Deferred, Head, Via};

/// The last argument of an annotated handler, when the scope, the key or the runtime uses that argument. It
/// is extracted immediately, like the arguments before it. Any other last argument is a [`Deferred`].
///
/// A unit test calls the handler with `.into()` on the last argument. The handler then runs without
/// protection:
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum::extract::Path;
/// use axum_idem::Headed;
///
/// async fn annotated(id: Headed<Path<u64>>) {
/// # let _ = id;
/// }
///
/// # fn test() -> impl Future<Output = ()> {
/// annotated(Path(7).into())
/// # }
/// ```
pub struct Headed<T, const LAZY: bool = false> {
    pub(crate) argument: T,
    pub(crate) body: Deferred<(), LAZY>,
}

/// Separates the argument from the rest of the request.
pub trait Split {
    /// The argument's type.
    type Argument;
    /// The rest of the request.
    type Rest;

    /// Returns the argument and the rest of the request.
    fn split(self) -> (Self::Argument, Self::Rest);
}

impl<T, const LAZY: bool> Split for Headed<T, LAZY> {
    type Argument = T;
    type Rest = Deferred<(), LAZY>;

    fn split(self) -> (T, Deferred<(), LAZY>) {
        (self.argument, self.body)
    }
}

/// Shadows [`Split::split`] when `T` reads the body. [`ReadsNoBody`] is never implemented, so the call
/// fails to compile, with the error at the scope. This catches body extractors that the attribute cannot
/// recognize by name.
impl<T, const LAZY: bool> Headed<T, LAZY>
where
    T: FromRequest<AnyState>,
{
    /// Never compiles, because `T` reads the body.
    #[doc(hidden)]
    pub fn split(self) -> (T, Deferred<(), LAZY>)
    where
        T: ReadsNoBody,
    {
        (self.argument, self.body)
    }
}

/// A dummy state. An extractor that implements `FromRequest<AnyState>` is generic over the state.
#[derive(Clone, Copy, Debug)]
pub struct AnyState;

/// Never implemented. The missing implementation reports an argument that reads the body.
#[diagnostic::on_unimplemented(
    message = "`{Self}` reads the body, which is extracted only after the key is known to be new",
    label = "comes from the body",
    note = "use an argument before it for the scope, such as the user or the path, or use `token` or `header(\"…\")`"
)]
pub trait ReadsNoBody {}

/// Avoids a second error for the same mistake at `.route(…)`.
impl<S, T, const LAZY: bool> FromRequest<S, Via<AnyState>> for Headed<T, LAZY>
where
    S: Send + Sync,
    T: FromRequest<S> + FromRequest<AnyState>,
{
    type Rejection = <T as FromRequest<S>>::Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let argument = <T as FromRequest<S>>::from_request(request, state).await?;
        Ok(argument.into())
    }
}

impl<S, T, const LAZY: bool> FromRequest<S> for Headed<T, LAZY>
where
    S: Send + Sync,
    T: FromRequestParts<S> + Send,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let argument = T::from_request_parts(&mut parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let request = Request::from_parts(parts, body);
        let body = <Deferred<(), LAZY> as FromRequest<S, Via<Head>>>::from_request(request, state)
            .await
            .map_err(IntoResponse::into_response)?;
        Ok(Self { argument, body })
    }
}

impl<T, const LAZY: bool> From<T> for Headed<T, LAZY> {
    fn from(argument: T) -> Self {
        Self {
            argument,
            body: ().into(),
        }
    }
}

impl<T, const LAZY: bool> fmt::Debug for Headed<T, LAZY> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headed")
    }
}
