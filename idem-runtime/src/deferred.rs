//! The handler's last argument, whose extraction waits until it is known that the handler runs.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};

use crate::key;

/// The last argument of an annotated handler.
///
/// The attribute wraps the argument's type in it. A request that cannot need a claim is extracted
/// at once, as it would be without the attribute; of any other the extraction is put off, so that
/// of the user's code only the head extractors run on a replay. With `LAZY` that is any request,
/// since it takes more than its headers to tell.
///
/// A unit test calls the handler with `.into()` on its last argument; it then runs unprotected:
///
/// ```
/// use idem_runtime::Deferred;
///
/// async fn annotated(body: Deferred<String>) {
/// # let _ = body;
/// }
///
/// # fn test() -> impl Future<Output = ()> {
/// annotated("hello".to_owned().into())
/// # }
/// ```
pub struct Deferred<T, const LAZY: bool = false>(pub(crate) State<T>);

pub(crate) enum State<T> {
    Extracted(T),
    /// The request has a key.
    Keyed(Box<dyn Pending<T>>),
    /// The request may have a key: its head alone does not tell.
    Undecided(Box<dyn Pending<T>>),
}

/// A request with all that it takes to extract a `T` from it.
pub(crate) trait Pending<T>: Send {
    fn request_mut(&mut self) -> &mut Request;

    fn extract(self: Box<Self>) -> Extraction<T>;
}

/// The extracted argument, or its extractor's answer.
pub(crate) type Extraction<T> = Pin<Box<dyn Future<Output = Result<T, Response>> + Send>>;

struct Kept<S, T, M> {
    request: Request,
    state: S,
    extracts: PhantomData<fn() -> (T, M)>,
}

impl<S, T, M> Pending<T> for Kept<S, T, M>
where
    S: Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
    M: 'static,
{
    fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    fn extract(self: Box<Self>) -> Extraction<T> {
        // A future of its own, for it is long and a replay needs none. It captures the box and not
        // the request, which it would have room for twice.
        Box::pin(async move {
            let Self { request, state, .. } = *self;
            T::from_request(request, &state)
                .await
                .map_err(IntoResponse::into_response)
        })
    }
}

/// Tells [`Deferred`]'s extraction from axum's own blanket one, by way of `T`'s.
#[derive(Debug)]
pub struct Via<M>(PhantomData<M>);

impl<S, T, M, const LAZY: bool> FromRequest<S, Via<M>> for Deferred<T, LAZY>
where
    S: Clone + Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
    M: 'static,
{
    type Rejection = T::Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        if !LAZY && !key::concerns(&request, request.extensions().get()) {
            let extracted = T::from_request(request, state).await?;
            return Ok(Self(State::Extracted(extracted)));
        }
        let kept = Box::new(Kept {
            request,
            state: state.clone(),
            extracts: PhantomData,
        });
        Ok(Self(if LAZY {
            State::Undecided(kept)
        } else {
            State::Keyed(kept)
        }))
    }
}

impl<T, const LAZY: bool> From<T> for Deferred<T, LAZY> {
    fn from(argument: T) -> Self {
        Self(State::Extracted(argument))
    }
}

/// Shows nothing of the request: `#[instrument]` records a handler's arguments.
impl<T, const LAZY: bool> fmt::Debug for Deferred<T, LAZY> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deferred")
    }
}

/// The last argument of an annotated handler whose scope names it: extracted at once, like those
/// before it.
pub struct Headed<T, const LAZY: bool = false> {
    argument: T,
    body: Deferred<(), LAZY>,
}

/// Takes the argument apart from the rest of the request.
pub trait Split {
    /// The argument's type.
    type Argument;
    /// The rest of the request.
    type Rest;

    /// The argument, and the rest of the request.
    fn split(self) -> (Self::Argument, Self::Rest);
}

impl<T, const LAZY: bool> Split for Headed<T, LAZY> {
    type Argument = T;
    type Rest = Deferred<(), LAZY>;

    fn split(self) -> (T, Deferred<(), LAZY>) {
        (self.argument, self.body)
    }
}

/// Found before the trait's method, and never compiled: where the argument reads the body after all,
/// its type being of another crate or name than the attribute knows, the scope hears of it.
impl<T, const LAZY: bool> Headed<T, LAZY>
where
    T: FromRequest<AnyState>,
{
    /// The mistake.
    pub fn split(self) -> (T, Deferred<(), LAZY>)
    where
        T: ReadsNoBody,
    {
        (self.argument, self.body)
    }
}

/// A state of no service's: what is extracted under it is extracted under any.
#[derive(Clone, Copy, Debug)]
pub struct AnyState;

/// No type is this: what asks for it has found one that reads the body.
#[diagnostic::on_unimplemented(
    message = "`{Self}` reads the body, which is extracted only once the key is known to be new",
    label = "comes from the body",
    note = "make the scope of an argument before it, such as the user or the path, or of `token` or `header(\"…\")`"
)]
pub trait ReadsNoBody {}

/// Keeps that mistake from being told a second time, at the route.
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
    S: Clone + Send + Sync + 'static,
    T: FromRequestParts<S> + Send,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let argument = T::from_request_parts(&mut parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let request = Request::from_parts(parts, body);
        let body = Deferred::from_request(request, state)
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
