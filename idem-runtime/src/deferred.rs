//! The handler's last argument, whose extraction waits until it is known that the handler runs.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, mem};

use axum::RequestExt;
use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;

use crate::key;
use crate::scope::{Scope, ScopeMissing};

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
    fn intake(&mut self) -> &mut Intake;

    fn extract(self: Box<Self>) -> Extraction<T>;
}

/// A request, and what is known of it before anything is extracted.
pub(crate) struct Intake {
    pub(crate) request: Request,
    /// How many bytes the body announces, at least.
    pub(crate) announced: u64,
    pub(crate) scope: Result<Scope, ScopeMissing>,
}

impl Intake {
    /// Holds the body against the limit that the service sets for it. One that has a key is read to
    /// its end, also for an extractor such as `Request`, which would skip that limit.
    pub(crate) fn limit_body(&mut self) {
        self.request = mem::take(&mut self.request).with_limited_body();
    }
}

/// The extracted argument, or its extractor's answer.
pub(crate) type Extraction<T> = Pin<Box<dyn Future<Output = Result<T, Response>> + Send>>;

struct Kept<S, T, M> {
    intake: Intake,
    state: S,
    extracts: PhantomData<fn() -> (T, M)>,
}

fn kept<S, T, M, const HAS_KEY: bool>(request: Request, state: S) -> Box<dyn Pending<T>>
where
    S: Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
    M: 'static,
{
    Box::new(Kept {
        intake: Intake {
            announced: request.body().size_hint().lower(),
            request: if HAS_KEY {
                request.with_limited_body()
            } else {
                request
            },
            scope: Ok(Scope::new()),
        },
        state,
        extracts: PhantomData,
    })
}

impl<S, T, M> Pending<T> for Kept<S, T, M>
where
    S: Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
    M: 'static,
{
    fn intake(&mut self) -> &mut Intake {
        &mut self.intake
    }

    fn extract(mut self: Box<Self>) -> Extraction<T> {
        // A future of its own, for it is long and a replay needs none. It captures the box and not
        // the request, which it would have room for twice.
        Box::pin(async move {
            T::from_request(mem::take(&mut self.intake.request), &self.state)
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

    #[expect(
        clippy::inline_always,
        reason = "called, it would copy the whole extraction, which is long, twice for each request"
    )]
    #[inline(always)]
    fn from_request(
        request: Request,
        state: &S,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send {
        if !LAZY && !key::concerns(&request, request.extensions().get()) {
            return Extracting::Now {
                extraction: T::from_request(request, state),
            };
        }
        Extracting::PutOff {
            kept: Some(if LAZY {
                kept::<_, _, _, false>(request, state.clone())
            } else {
                kept::<_, _, _, true>(request, state.clone())
            }),
            deferred: PhantomData,
        }
    }
}

pin_project! {
    /// The future of [`Deferred`]'s extraction. No `async` block, which would have room for the
    /// request beside the extraction that it moves into.
    #[project = ExtractingProjection]
    enum Extracting<F, T, D> {
        Now { #[pin] extraction: F },
        PutOff { kept: Option<Box<dyn Pending<T>>>, deferred: PhantomData<fn() -> D> },
    }
}

impl<F, T, R, const LAZY: bool> Future for Extracting<F, T, Deferred<T, LAZY>>
where
    F: Future<Output = Result<T, R>>,
{
    type Output = Result<Deferred<T, LAZY>, R>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = match self.project() {
            ExtractingProjection::Now { extraction } => match extraction.poll(cx) {
                Poll::Ready(Ok(argument)) => State::Extracted(argument),
                Poll::Ready(Err(rejection)) => return Poll::Ready(Err(rejection)),
                Poll::Pending => return Poll::Pending,
            },
            ExtractingProjection::PutOff { kept, .. } => match kept.take() {
                Some(kept) if LAZY => State::Undecided(kept),
                Some(kept) => State::Keyed(kept),
                None => return Poll::Pending,
            },
        };
        Poll::Ready(Ok(Deferred(state)))
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
