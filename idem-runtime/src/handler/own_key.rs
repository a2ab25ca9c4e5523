//! The key of an endpoint with `key = …`.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::handler::deferred::Deferred;
use crate::handler::key::IdempotencyKey;
use crate::request::chosen_key::ChosenKey;

/// Takes the key of one request from an expression.
#[derive(Debug)]
pub struct KeyPart(pub(super) ());

/// The key of one request. Only [`KeyPart::is`] creates one, so the expression cannot return early.
pub struct KeyChosen(pub(super) Option<Box<str>>);

impl fmt::Debug for KeyChosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyChosen(…)")
    }
}

impl KeyPart {
    /// Chooses `value`.
    ///
    /// # Panics
    ///
    /// If the `Display` implementation of the value returns an error.
    pub fn is<V: KeyValue<M> + ?Sized, M>(self, value: &V) -> KeyChosen {
        KeyChosen(value.key())
    }
}

/// A value that `key = …` accepts: any type that implements `Display`, or an `Option` of one.
///
/// The parameter distinguishes the two, so that their implementations do not overlap.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key, because it does not implement `Display`",
    label = "neither `Display` nor an `Option` of it",
    note = "use a field that implements `Display`, such as `event.id`, or an `Option` of one for a request that may have no key"
)]
pub trait KeyValue<M> {
    /// Returns the key. `None` if the request has none.
    fn key(&self) -> Option<Box<str>>;
}

/// Marks a value that is always a key.
#[derive(Debug)]
pub struct Always;

/// Marks a value that may be no key.
#[derive(Debug)]
pub struct Maybe;

impl<T: Display + ?Sized> KeyValue<Always> for T {
    fn key(&self) -> Option<Box<str>> {
        Some(self.to_string().into())
    }
}

impl<T: Display> KeyValue<Maybe> for Option<T> {
    fn key(&self) -> Option<Box<str>> {
        self.as_ref().and_then(KeyValue::<Always>::key)
    }
}

impl<T: Display> KeyValue<Maybe> for &Option<T> {
    fn key(&self) -> Option<Box<str>> {
        (**self).key()
    }
}

/// The argument `IdempotencyKey` or `Option<IdempotencyKey>` of an endpoint with `key = …`. It is extracted
/// before the key is known.
///
/// A unit test passes such an argument with `.into()`, also as the last argument, which has two wrappers.
pub struct KeyArgument<T>(State<T>);

enum State<T> {
    Chosen(ChosenKey, PhantomData<fn() -> T>),
    /// From a unit test.
    Given(T),
}

impl<T> KeyArgument<T> {
    /// Returns the argument.
    ///
    /// The bound is on the method, so that the compiler reports another type with the words of [`TakesKey`].
    pub fn take(self) -> T
    where
        T: TakesKey,
    {
        match self.0 {
            State::Chosen(key, _) => T::take(key.get()),
            State::Given(argument) => argument,
        }
    }
}

/// Implemented by `IdempotencyKey` and `Option<IdempotencyKey>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the `IdempotencyKey` of axum-idem",
    label = "with `key = …`, an argument of this name is the key",
    note = "rename this type, or import it under another name"
)]
pub trait TakesKey: Sized {
    /// Returns the argument for this key.
    fn take(key: Option<&str>) -> Self;
}

impl TakesKey for IdempotencyKey {
    /// The policy of the endpoint refuses a request without a key.
    fn take(key: Option<&str>) -> Self {
        Self::new(key.expect("a handler with an `IdempotencyKey` runs only with a key"))
    }
}

impl TakesKey for Option<IdempotencyKey> {
    fn take(key: Option<&str>) -> Self {
        key.map(IdempotencyKey::new)
    }
}

impl<T, S: Sync> FromRequestParts<S> for KeyArgument<T> {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let chosen = parts.extensions.get_or_insert_default::<ChosenKey>();
        // The key of an outer handler, which has passed its request on.
        if chosen.get().is_some() {
            *chosen = ChosenKey::default();
        }
        Ok(Self(State::Chosen(chosen.share(), PhantomData)))
    }
}

impl<T> From<T> for KeyArgument<T> {
    fn from(argument: T) -> Self {
        Self(State::Given(argument))
    }
}

impl<const LAZY: bool> From<IdempotencyKey> for Deferred<KeyArgument<IdempotencyKey>, LAZY> {
    fn from(key: IdempotencyKey) -> Self {
        KeyArgument::from(key).into()
    }
}

impl<const LAZY: bool> From<Option<IdempotencyKey>>
    for Deferred<KeyArgument<Option<IdempotencyKey>>, LAZY>
{
    fn from(key: Option<IdempotencyKey>) -> Self {
        KeyArgument::from(key).into()
    }
}

impl<T> fmt::Debug for KeyArgument<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyArgument(…)")
    }
}
