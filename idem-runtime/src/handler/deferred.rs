//! The handler's last argument: extracted at once, or when it is known that the handler runs.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, mem};

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;

use crate::request::intake::Intake;
use crate::service::idempotency::Idempotency;

/// The last argument of an annotated handler.
///
/// The attribute wraps the argument's type in it. When the argument reads the head of the request
/// only (it implements [`FromRequestParts`]), it is extracted on every request, before the key is
/// looked up. So an authenticating extractor protects replays too, wherever it stands.
///
/// When the argument may read the body (it implements [`FromRequest`]), the extraction of a request
/// with a key waits until the key is claimed. A replay does not extract it. With `LAZY`, every request
/// waits, because the head alone does not tell whether it has a key.
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
pub struct Deferred<T, const LAZY: bool = false>(pub(crate) DeferredState<T>);

pub(crate) enum DeferredState<T> {
    /// The request has no key.
    Extracted(T),
    /// The request has a key.
    Keyed(Box<dyn PendingExtraction<T>>),
    /// The request may have a key: its head alone does not tell.
    Undecided(Box<dyn PendingExtraction<T>>),
}

/// A request whose handler has not begun.
pub(crate) trait PendingExtraction<T>: Send {
    fn intake(&mut self) -> &mut Intake;

    fn extract(self: Box<Self>) -> Extraction<T>;
}

/// The last argument, or its rejection.
pub(crate) enum Extraction<T> {
    /// Extracted before the key was claimed. `None` once it is taken.
    Done(Option<T>),
    Running(Pin<Box<dyn Future<Output = Result<T, Response>> + Send>>),
}

impl<T> Extraction<T> {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Response>> {
        match self {
            Self::Done(argument) => argument
                .take()
                .map_or(Poll::Pending, |argument| Poll::Ready(Ok(argument))),
            Self::Running(extraction) => extraction.as_mut().poll(cx),
        }
    }
}

/// Waits with an argument that may read the body.
struct Unread<S, T> {
    intake: Intake,
    state: S,
    extracts: PhantomData<fn() -> T>,
}

impl<S, T> PendingExtraction<T> for Unread<S, T>
where
    S: Send + Sync + 'static,
    T: FromRequest<S> + 'static,
{
    fn intake(&mut self) -> &mut Intake {
        &mut self.intake
    }

    fn extract(mut self: Box<Self>) -> Extraction<T> {
        // A future of its own, for it is long and a replay needs none. It captures the box and not
        // the request, which it would have room for twice.
        Extraction::Running(Box::pin(async move {
            T::from_request(mem::take(&mut self.intake.request), &self.state)
                .await
                .map_err(IntoResponse::into_response)
        }))
    }
}

/// Waits with an argument that was extracted from the head.
struct Extracted<T> {
    intake: Intake,
    argument: T,
}

impl<T: Send> PendingExtraction<T> for Extracted<T> {
    fn intake(&mut self) -> &mut Intake {
        &mut self.intake
    }

    fn extract(self: Box<Self>) -> Extraction<T> {
        Extraction::Done(Some(self.argument))
    }
}

/// Distinguishes an argument that may read the body from one that reads the head only, as axum does
/// by the second parameter of [`FromRequest`]. It also keeps both from overlapping with axum's own
/// blanket implementation.
#[derive(Debug)]
pub struct Via<M>(PhantomData<M>);

/// The marker of an argument that reads the head only.
#[derive(Clone, Copy, Debug)]
pub struct Head;

/// The marker of an argument that may read the body.
#[derive(Clone, Copy, Debug)]
pub struct Body;

impl<S, T, const LAZY: bool> FromRequest<S, Via<Body>> for Deferred<T, LAZY>
where
    S: Clone + Send + Sync + 'static,
    T: FromRequest<S> + 'static,
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
        if !LAZY && !Idempotency::concerns(&request, request.extensions().get()) {
            return Extracting::<_, FromHead<'_, T, T::Rejection>, _, _>::Now {
                extraction: T::from_request(request, state),
            };
        }
        Extracting::Later {
            pending: Some(Box::new(Unread {
                intake: Intake::new(request),
                state: state.clone(),
                extracts: PhantomData,
            })),
            deferred: PhantomData,
        }
    }
}

impl<S, T, const LAZY: bool> FromRequest<S, Via<Head>> for Deferred<T, LAZY>
where
    S: Send + Sync,
    T: FromRequestParts<S> + Send + 'static,
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
        if !LAZY && !Idempotency::concerns(&request, request.extensions().get()) {
            return Extracting::Now {
                extraction: T::from_request(request, state),
            };
        }
        let extraction: FromHead<'_, T, T::Rejection> =
            Box::pin(extract_from_head::<_, _, LAZY>(request, state));
        Extracting::FromHead { extraction }
    }
}

/// Extracts the argument of a request with a key, and keeps the rest of the request. Boxed, so that a
/// request without a key has no room for it.
type FromHead<'a, T, R> =
    Pin<Box<dyn Future<Output = Result<Box<dyn PendingExtraction<T>>, R>> + Send + 'a>>;

async fn extract_from_head<S, T, const LAZY: bool>(
    request: Request,
    state: &S,
) -> Result<Box<dyn PendingExtraction<T>>, T::Rejection>
where
    S: Send + Sync,
    T: FromRequestParts<S> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let argument = T::from_request_parts(&mut parts, state).await?;
    Ok(Box::new(Extracted {
        intake: Intake::new(Request::from_parts(parts, body)),
        argument,
    }))
}

pin_project! {
    /// The future of [`Deferred`]'s extraction. No `async` block, which would have room for the
    /// request beside the extraction that it moves into.
    #[project = ExtractingProjection]
    enum Extracting<F, H, T, D> {
        Now { #[pin] extraction: F },
        FromHead { extraction: H },
        Later { pending: Option<Box<dyn PendingExtraction<T>>>, deferred: PhantomData<fn() -> D> },
    }
}

impl<F, T, R, const LAZY: bool> Future for Extracting<F, FromHead<'_, T, R>, T, Deferred<T, LAZY>>
where
    F: Future<Output = Result<T, R>>,
{
    type Output = Result<Deferred<T, LAZY>, R>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let pending = match self.project() {
            ExtractingProjection::Now { extraction } => {
                return extraction
                    .poll(cx)
                    .map_ok(|argument| Deferred(DeferredState::Extracted(argument)));
            }
            ExtractingProjection::FromHead { extraction } => {
                match ready!(extraction.as_mut().poll(cx)) {
                    Ok(pending) => pending,
                    Err(rejection) => return Poll::Ready(Err(rejection)),
                }
            }
            ExtractingProjection::Later { pending, .. } => match pending.take() {
                Some(pending) => pending,
                None => return Poll::Pending,
            },
        };
        Poll::Ready(Ok(Deferred(if LAZY {
            DeferredState::Undecided(pending)
        } else {
            DeferredState::Keyed(pending)
        })))
    }
}

impl<T, const LAZY: bool> From<T> for Deferred<T, LAZY> {
    fn from(argument: T) -> Self {
        Self(DeferredState::Extracted(argument))
    }
}

/// Shows nothing of the request: `#[instrument]` records a handler's arguments.
impl<T, const LAZY: bool> fmt::Debug for Deferred<T, LAZY> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deferred")
    }
}
