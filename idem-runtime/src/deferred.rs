//! The handler's last argument, whose extraction waits until it is known that the handler runs.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, mem};

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;

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
    Keyed(Pin<Box<dyn Pending<T>>>),
    /// The request may have a key: its head alone does not tell.
    Undecided(Pin<Box<dyn Pending<T>>>),
}

/// A request, and the extraction of a `T` from it, which begins when it is first polled.
pub(crate) trait Pending<T>: Future<Output = Result<T, Response>> + Send {
    /// The request, until the extraction begins.
    fn request_mut(self: Pin<&mut Self>) -> &mut Request;
}

pin_project! {
    /// Both in one place, for it is on the heap.
    struct Kept<E, F> {
        request: Request,
        extract: Option<E>,
        #[pin]
        extraction: Option<F>,
    }
}

impl<E, F> Kept<E, F>
where
    E: FnOnce(Request) -> F,
{
    fn new(request: Request, extract: E) -> Self {
        Self {
            request,
            extract: Some(extract),
            extraction: None,
        }
    }
}

impl<T, E, F> Future for Kept<E, F>
where
    E: FnOnce(Request) -> F,
    F: Future<Output = Result<T, Response>>,
{
    type Output = Result<T, Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut kept = self.project();
        if let Some(extract) = kept.extract.take() {
            let request = mem::take(kept.request);
            kept.extraction.set(Some(extract(request)));
        }
        match kept.extraction.as_pin_mut() {
            Some(extraction) => extraction.poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<T, E, F> Pending<T> for Kept<E, F>
where
    E: FnOnce(Request) -> F + Send,
    F: Future<Output = Result<T, Response>> + Send,
{
    fn request_mut(self: Pin<&mut Self>) -> &mut Request {
        self.project().request
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
        let state = state.clone();
        let kept = Box::pin(Kept::new(request, move |request| async move {
            let extracted = T::from_request(request, &state).await;
            extracted.map_err(IntoResponse::into_response)
        }));
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

impl<T, const LAZY: bool> Headed<T, LAZY> {
    /// The argument, and the rest of the request.
    pub fn split(self) -> (T, Deferred<(), LAZY>) {
        (self.argument, self.body)
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
