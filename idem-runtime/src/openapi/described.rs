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
use crate::openapi::facts::Facts;

/// The last argument of an annotated handler: a [`Deferred`] or a [`Headed`] with a type that documents the handler.
pub struct Described<W, D>(W, PhantomData<fn() -> D>);

/// The declared return type of a handler, and its facts.
#[derive(Debug)]
pub struct Declared<R, const FACTS: u128>(PhantomData<fn() -> R>);

/// The facts of a handler whose return type contains an `impl Trait`.
#[derive(Debug)]
pub struct Undeclared<const FACTS: u128>;

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

impl<W, R, const FACTS: u128> OperationInput for Described<W, Declared<R, FACTS>>
where
    W: Wrapper<Argument: OperationInput>,
    R: OperationOutput,
{
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        W::Argument::operation_input(ctx, operation);
        add_key_parameter(ctx, operation, Facts(FACTS));
    }

    /// The responses of the handler are early ones too, because `aide` takes nothing from a `Response`.
    fn inferred_early_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Response)> {
        let mut responses = R::inferred_responses(ctx, operation);
        responses.extend(W::Argument::inferred_early_responses(ctx, operation));
        responses
    }
}

impl<W, const FACTS: u128> OperationInput for Described<W, Undeclared<FACTS>>
where
    W: Wrapper<Argument: OperationInput>,
{
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        W::Argument::operation_input(ctx, operation);
        add_key_parameter(ctx, operation, Facts(FACTS));
    }

    fn inferred_early_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Response)> {
        W::Argument::inferred_early_responses(ctx, operation)
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
