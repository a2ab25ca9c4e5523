//! The types by which `aide` sees an annotated handler.
//!
//! `aide` documents a handler by the types of its arguments and of its response. The response of an annotated handler is
//! always a `Response`, so the type of the last argument also has the declared return type and the facts.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use aide::generate::GenContext;
use aide::openapi::{Operation, Response};
use aide::operation::{OperationInput, OperationOutput};
use axum::extract::{FromRequest, Request};

use crate::attempt::handle::Attempt;
use crate::handler::deferred::Deferred;
use crate::handler::headed::Headed;
use crate::handler::key::IdempotencyKey;
use crate::handler::own_key::KeyArgument;
use crate::openapi::aide::add_key_parameter;
use crate::openapi::facts::{Facts, KeyName};

/// The last argument of an annotated handler: a [`Deferred`] or a [`Headed`] with a type that documents the handler.
pub struct Described<W, D>(W, PhantomData<fn() -> D>);

/// The declared return type of a handler, its facts, and the name of the header of `key = header("…")`.
#[derive(Debug)]
pub struct Declared<R, const FACTS: u128, Name = ()>(PhantomData<fn() -> (R, Name)>);

/// Replaces an `impl Trait` in the declared return type. It documents nothing.
#[derive(Debug)]
pub struct Undeclared;

impl OperationOutput for Undeclared {
    type Inner = Self;
}

impl<W, D> Described<W, D> {
    pub(crate) fn new(wrapped: W) -> Self {
        Self(wrapped, PhantomData)
    }

    /// Returns the argument as the runtime takes it.
    pub fn undescribed(self) -> W {
        self.0
    }
}

impl<T, const LAZY: bool, D> From<T> for Described<Deferred<T, LAZY>, D> {
    fn from(argument: T) -> Self {
        Self::new(argument.into())
    }
}

impl<T, const LAZY: bool, D> From<T> for Described<Headed<T, LAZY>, D> {
    fn from(argument: T) -> Self {
        Self::new(argument.into())
    }
}

impl<const LAZY: bool, D> From<IdempotencyKey>
    for Described<Deferred<KeyArgument<IdempotencyKey>, LAZY>, D>
{
    fn from(key: IdempotencyKey) -> Self {
        Self::new(key.into())
    }
}

impl<const LAZY: bool, D> From<Option<IdempotencyKey>>
    for Described<Deferred<KeyArgument<Option<IdempotencyKey>>, LAZY>, D>
{
    fn from(key: Option<IdempotencyKey>) -> Self {
        Self::new(key.into())
    }
}

/// Keeps the implementation apart from the blanket implementation of axum.
#[derive(Debug)]
pub struct ViaWrapped<V>(PhantomData<V>);

impl<S, V, W, D> FromRequest<S, ViaWrapped<V>> for Described<W, D>
where
    S: Send + Sync,
    W: FromRequest<S, V>,
{
    type Rejection = W::Rejection;

    fn from_request(
        request: Request,
        state: &S,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send {
        let wrapped = W::from_request(request, state);
        async move { Ok(Self::new(wrapped.await?)) }
    }
}

/// The argument that a wrapper contains.
pub trait Wrapper {
    /// The type that the user wrote.
    type Argument;
}

impl<T, const LAZY: bool> Wrapper for Deferred<T, LAZY> {
    type Argument = T;
}

impl<T, const LAZY: bool> Wrapper for Headed<T, LAZY> {
    type Argument = T;
}

impl<W, R, Name, const FACTS: u128> OperationInput for Described<W, Declared<R, FACTS, Name>>
where
    W: Wrapper<Argument: OperationInput>,
    R: OperationOutput,
    Name: KeyName,
{
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        W::Argument::operation_input(ctx, operation);
        add_key_parameter::<Name>(ctx, operation, Facts(FACTS));
    }

    /// Returns the responses of the handler together with those of the argument, because `aide` finds no response in the
    /// return type `Response`.
    fn inferred_early_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Response)> {
        let mut responses = R::inferred_responses(ctx, operation);
        responses.extend(W::Argument::inferred_early_responses(ctx, operation));
        responses
    }
}

/// The attribute documents the key header, so the extractor adds nothing.
#[cfg(feature = "aide")]
impl OperationInput for IdempotencyKey {}

impl<T> OperationInput for KeyArgument<T> {}

#[cfg(feature = "aide")]
impl OperationInput for Attempt {}

/// Shows nothing of the request, because `#[instrument]` records the arguments of a handler.
impl<W, D> fmt::Debug for Described<W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Described")
    }
}
