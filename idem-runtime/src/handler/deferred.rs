//! The handler's last argument, which is extracted immediately or only after the key is claimed.

#[cfg(feature = "testing")]
use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, mem};

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};

use crate::request::intake::Intake;
use crate::service::idempotency::Idempotency;

/// The last argument of an annotated handler.
///
/// The attribute wraps the type of the argument in `Deferred`. An argument that reads only the head
/// of the request implements [`FromRequestParts`]. Such an argument is extracted for every request,
/// before the key is looked up. So an authenticating extractor protects replays too, at any
/// position.
///
/// An argument that may read the body implements [`FromRequest`]. If the request has a key, such an
/// argument is extracted only after the key is claimed, and a replay does not extract it. With
/// `LAZY`, every extraction waits, because the head alone does not show whether the request has a
/// key.
///
/// If an argument is not an extractor, the compiler prints the signature of the handler at the route,
/// with `Deferred<Order>` for a last argument `Order`. `#[axum::debug_handler]` reports the argument
/// itself.
///
/// A unit test calls the handler with `.into()` on the last argument. The handler then runs without
/// protection:
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum_idem::Deferred;
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
    /// The request has a key. With `LAZY`, it may have a key.
    Pending(Box<dyn PendingExtraction<T>>),
    /// There is no request, and a unit test wants the value that the handler returns.
    #[cfg(feature = "testing")]
    Observed(T, Observer),
}

/// Gets the value that a handler returns, as an `Option` of it, and the name of its type.
#[cfg(feature = "testing")]
pub(crate) type Observer = Box<dyn FnOnce(&mut dyn Any, &'static str) + Send>;

/// A request whose handler has not started.
pub(crate) trait PendingExtraction<T>: Send {
    fn intake(&mut self) -> &mut Intake;

    fn extract(self: Box<Self>) -> Extraction<T>;
}

/// The extraction of the last argument, which yields the argument or its rejection.
pub(crate) enum Extraction<T> {
    /// The argument was extracted before the key was claimed. `None` after it is taken.
    Done(Option<T>),
    Running(Pin<Box<dyn Future<Output = Result<T, Response>> + Send>>),
}

/// A request whose argument may read the body and is not extracted yet.
struct Unread<S, T> {
    intake: Intake,
    state: S,
    extracts: PhantomData<fn() -> T>,
}

impl<S, T> Unread<S, T>
where
    S: Clone + Send + Sync + 'static,
    T: FromRequest<S> + 'static,
{
    /// A separate function, because its caller is inlined into every handler.
    fn pending(request: Request, state: &S) -> Box<dyn PendingExtraction<T>> {
        Box::new(Self {
            intake: Intake::new(request),
            state: state.clone(),
            extracts: PhantomData,
        })
    }
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
        // In a separate box, because the future is large and a replay does not need it. The future
        // captures `self` instead of the request, because it would reserve space for the request
        // twice.
        Extraction::Running(Box::pin(async move {
            T::from_request(mem::take(&mut self.intake.request), &self.state)
                .await
                .map_err(IntoResponse::into_response)
        }))
    }
}

/// A request whose argument was extracted from the head.
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

/// Distinguishes an argument that may read the body from an argument that reads only the head. axum
/// uses the second parameter of [`FromRequest`] in the same way. `Via` also keeps both
/// implementations from overlapping with the blanket implementation of axum.
#[derive(Debug)]
pub struct Via<M>(PhantomData<M>);

/// Marks an argument that reads only the head.
#[derive(Clone, Copy, Debug)]
pub struct Head;

/// Marks an argument that may read the body.
#[derive(Clone, Copy, Debug)]
pub struct Body;

impl<S, T, const LAZY: bool> FromRequest<S, Via<Body>> for Deferred<T, LAZY>
where
    S: Clone + Send + Sync + 'static,
    T: FromRequest<S> + 'static,
{
    type Rejection = T::Rejection;

    fn from_request(
        request: Request,
        state: &S,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send {
        if is_immediate::<LAZY>(&request) {
            Extracting::<_, _, LAZY>::Now(Box::pin(T::from_request(request, state)))
        } else {
            Extracting::Later(Some(Unread::<S, T>::pending(request, state)))
        }
    }
}

impl<S, T, const LAZY: bool> FromRequest<S, Via<Head>> for Deferred<T, LAZY>
where
    S: Send + Sync,
    T: FromRequestParts<S> + Send + 'static,
{
    type Rejection = T::Rejection;

    fn from_request(
        request: Request,
        state: &S,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send {
        let is_immediate = is_immediate::<LAZY>(&request);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let argument = T::from_request_parts(&mut parts, state).await?;
            Ok(Self(if is_immediate {
                DeferredState::Extracted(argument)
            } else {
                DeferredState::Pending(Box::new(Extracted {
                    intake: Intake::new(Request::from_parts(parts, body)),
                    argument,
                }))
            }))
        })
    }
}

/// Returns whether the argument is extracted immediately, because the request has no key.
fn is_immediate<const LAZY: bool>(request: &Request) -> bool {
    !LAZY && !Idempotency::concerns(request, request.extensions().get())
}

/// The future that extracts a [`Deferred`] that may read the body.
///
/// The extraction is in a box of its own, because axum boxes the future of the whole handler. With the
/// extraction of a `Json` in it, this future has over 1,100 bytes. glibc serves more than 1,032 bytes from
/// slower lists. Measured: two boxes take 900 instructions less than one.
enum Extracting<'a, T, R, const LAZY: bool> {
    Now(Pin<Box<dyn Future<Output = Result<T, R>> + Send + 'a>>),
    Later(Option<Box<dyn PendingExtraction<T>>>),
}

impl<T, R, const LAZY: bool> Future for Extracting<'_, T, R, LAZY> {
    type Output = Result<Deferred<T, LAZY>, R>;

    // Inlined, it would be compiled again for each handler. Measured: 0.2 KB.
    #[inline(never)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = match self.get_mut() {
            Self::Now(extraction) => match ready!(extraction.as_mut().poll(cx)) {
                Ok(argument) => DeferredState::Extracted(argument),
                Err(rejection) => return Poll::Ready(Err(rejection)),
            },
            Self::Later(pending) => match pending.take() {
                Some(pending) => DeferredState::Pending(pending),
                None => panic!("polled after completion"),
            },
        };
        Poll::Ready(Ok(Deferred(state)))
    }
}

impl<T, const LAZY: bool> From<T> for Deferred<T, LAZY> {
    fn from(argument: T) -> Self {
        Self(DeferredState::Extracted(argument))
    }
}

/// Shows nothing of the request, because `#[instrument]` records the arguments of a handler.
impl<T, const LAZY: bool> fmt::Debug for Deferred<T, LAZY> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deferred")
    }
}
