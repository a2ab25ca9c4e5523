//! Calls an annotated handler in a unit test and returns the value that the handler declares.

use std::any::{Any, type_name};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;

use crate::handler::deferred::{Deferred, DeferredState, Observer};
use crate::handler::headed::Headed;
use crate::handler::key::IdempotencyKey;
use crate::handler::own_key::KeyArgument;

/// Calls an annotated handler and returns the value that it declares, before that value becomes a
/// response. The handler runs without protection, as with `.into()`.
///
/// Pass the last argument of the handler, and a closure that calls the handler with that argument. A handler
/// without arguments gets `()`. The type of the result must be the declared return type. A return type with
/// `impl Trait` cannot be named, so such a handler can be tested only by its response.
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum::Json;
/// use axum::http::StatusCode;
/// use axum_idem::testing;
///
/// # /*
/// #[idempotent(scope = user.id)]
/// async fn place_trade(user: User, Json(order): Json<u32>) -> Result<(StatusCode, Json<u32>), String> {
///     if order == 0 { return Err("nothing to trade".into()); }
///     Ok((StatusCode::CREATED, Json(order)))
/// }
/// # */
/// # struct User { id: u64 }
/// # use idem_runtime::__private::{Policy, Response};
/// # fn place_trade(user: User, order: axum_idem::Deferred<Json<u32>>) -> impl Future<Output = Response> {
/// #     static POLICY: Policy = Policy::new("test");
/// #     POLICY.admit(order).value(|part| part.is(&user.id)).run(async move |Json(order): Json<u32>| {
/// #         if order == 0 { return Err("nothing to trade".to_owned()); }
/// #         Ok((StatusCode::CREATED, Json(order)))
/// #     })
/// # }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let placed: Result<(StatusCode, Json<u32>), String> =
///     testing::returned_by(Json(7), |order| place_trade(User { id: 1 }, order)).await;
/// assert_eq!(placed.unwrap().1.0, 7);
/// # });
/// ```
///
/// # Panics
///
/// When `R` is not the declared return type, when the closure does not call an annotated handler with the
/// argument that it gets, and when the handler panics.
pub async fn returned_by<R, T, W, F>(last: T, call: impl FnOnce(W) -> F) -> R
where
    R: Send + 'static,
    W: LastArgument<T>,
    F: Future<Output = Response>,
{
    let returned = Arc::new(Mutex::new(None));
    let value = returned.clone();
    let observer: Observer = Box::new(move |output: &mut dyn Any, name| {
        let output = output.downcast_mut::<Option<R>>().unwrap_or_else(|| {
            panic!("the handler returns `{name}`, not `{}`", type_name::<R>());
        });
        *value.lock().unwrap_or_else(PoisonError::into_inner) = output.take();
    });
    call(W::observed(last, observer)).await;
    let mut returned = returned.lock().unwrap_or_else(PoisonError::into_inner);
    let returned = returned.take();
    returned.expect("the closure does not call an annotated handler with its argument")
}

/// The last argument of an annotated handler, as [`returned_by`] passes it to the handler.
pub trait LastArgument<T>: sealed::Observed<T> {}

impl<T, const LAZY: bool> LastArgument<T> for Deferred<T, LAZY> {}
impl<T, const LAZY: bool> LastArgument<T> for Headed<T, LAZY> {}
// The key of the endpoint has a wrapper of its own.
impl<const LAZY: bool> LastArgument<IdempotencyKey>
    for Deferred<KeyArgument<IdempotencyKey>, LAZY>
{
}
impl<const LAZY: bool> LastArgument<Option<IdempotencyKey>>
    for Deferred<KeyArgument<Option<IdempotencyKey>>, LAZY>
{
}

#[cfg(feature = "aide")]
impl<T, W: LastArgument<T>, D> LastArgument<T> for crate::openapi::described::Described<W, D> {}

mod sealed {
    use super::{Deferred, DeferredState, Headed, IdempotencyKey, KeyArgument, Observer};

    #[cfg(feature = "aide")]
    impl<T, W: Observed<T>, D> Observed<T> for crate::openapi::described::Described<W, D> {
        fn observed(argument: T, observer: Observer) -> Self {
            Self::new(W::observed(argument, observer))
        }
    }

    pub trait Observed<T> {
        /// Wraps the argument for a call without a request.
        fn observed(argument: T, observer: Observer) -> Self;
    }

    impl<T, const LAZY: bool> Observed<T> for Deferred<T, LAZY> {
        fn observed(argument: T, observer: Observer) -> Self {
            Self(DeferredState::Observed(argument, observer))
        }
    }

    impl<const LAZY: bool> Observed<IdempotencyKey> for Deferred<KeyArgument<IdempotencyKey>, LAZY> {
        fn observed(key: IdempotencyKey, observer: Observer) -> Self {
            Self(DeferredState::Observed(key.into(), observer))
        }
    }

    impl<const LAZY: bool> Observed<Option<IdempotencyKey>>
        for Deferred<KeyArgument<Option<IdempotencyKey>>, LAZY>
    {
        fn observed(key: Option<IdempotencyKey>, observer: Observer) -> Self {
            Self(DeferredState::Observed(key.into(), observer))
        }
    }

    impl<T, const LAZY: bool> Observed<T> for Headed<T, LAZY> {
        fn observed(argument: T, observer: Observer) -> Self {
            Self {
                argument,
                body: Deferred(DeferredState::Observed((), observer)),
            }
        }
    }
}
