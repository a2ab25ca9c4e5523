//! The extractor of the idempotency key.

use std::fmt;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;

use crate::request::key::parse;
use crate::response::problem::Problem;
use crate::service::idempotency::Idempotency;
use crate::settings::dialect::Dialect;

/// Extractor for the key of this request, without the quotes and escapes of the header.
///
/// Use the key in logs and in calls to other services. `IdempotencyKey` rejects a request without a
/// key. `Option<IdempotencyKey>` is `None` for such a request. Both reject a key that the
/// [`Dialect`] of the [`Idempotency`] layer does not accept. Without a layer, both use the default
/// dialect.
///
/// An endpoint with `runtime = …` chooses its settings only after its arguments are extracted, so
/// this extractor cannot know the dialect of that endpoint. If the dialect has its own key header
/// or key rules, install a layer with the same dialect above the endpoint:
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum::{Router, extract::State, routing::post};
/// use axum_idem::{Dialect, Idempotency};
///
/// let dialect = Dialect::default().key_header("x-request-id");
/// let idem = Idempotency::builder().dialect(dialect).build();
/// let router: Router = Router::new()
///     // .route("/trades", post(place_trade)) with `runtime = idem` and an `IdempotencyKey`
/// #   .route("/trades", post(|_: State<Idempotency>| async {}))
///     .layer(idem.clone())
///     .with_state(idem);
/// ```
///
/// `Debug` does not show the key, because `#[instrument]` and panic messages may write arguments to
/// logs by accident.
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum_idem::IdempotencyKey;
///
/// async fn charge(key: Option<IdempotencyKey>) -> String {
///     key.map_or_else(|| "no key".into(), |key| format!("key of {} bytes", key.as_str().len()))
/// }
/// # let _ = charge;
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Returns a key for a unit test, which calls a handler without a request.
    ///
    /// Pass the key without the quotes of the header. No rule of a [`Dialect`] is checked.
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use axum_idem::IdempotencyKey;
    ///
    /// assert_eq!(IdempotencyKey::new("order-7").as_str(), "order-7");
    /// ```
    #[must_use]
    pub fn new(key: impl Into<Box<str>>) -> Self {
        Self(key.into())
    }

    /// Returns the key as a string slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

impl AsRef<str> for IdempotencyKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<IdempotencyKey> for String {
    fn from(key: IdempotencyKey) -> Self {
        key.0.into()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        <Self as OptionalFromRequestParts<S>>::from_request_parts(parts, state)
            .await?
            .ok_or_else(Problem::key_missing)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        let key = match parts.extensions.get::<Idempotency>() {
            Some(idem) => parse(&parts.headers, &idem.settings().dialect),
            // The layer adds no extension to a request without a key.
            None => parse(&parts.headers, &Dialect::default()),
        };
        match key {
            Ok(key) => Ok(key.map(Self::new)),
            Err(reason) => Err(Problem::key_invalid(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[tokio::test]
    async fn the_extractors_return_the_key_or_none_or_reject_the_request() {
        async fn both(line: Option<&str>) -> [Result<Option<String>, &'static str>; 2] {
            let mut request = Request::post("/");
            if let Some(line) = line {
                request = request.header("idempotency-key", line);
            }
            let (mut parts, ()) = request.body(()).expect("a request").into_parts();
            let parts = &mut parts;
            let asked = <IdempotencyKey as OptionalFromRequestParts<()>>::from_request_parts;
            let asked = asked(parts, &()).await;
            let needed = <IdempotencyKey as FromRequestParts<()>>::from_request_parts;
            let needed = needed(parts, &()).await;
            [asked, needed.map(Some)].map(|key| {
                key.map(|key| key.map(String::from))
                    .map_err(|problem| problem.code())
            })
        }
        let key = Ok(Some("k".to_owned()));
        assert_eq!(both(Some("\"k\"")).await, [key.clone(), key]);
        let missing = Err("idempotency_key_missing");
        assert_eq!(both(None).await, [Ok(None), missing]);
        let invalid = Err("idempotency_key_invalid");
        assert_eq!(both(Some("a,b")).await, [invalid.clone(), invalid]);
    }

    #[test]
    fn debug_output_hides_the_key() {
        let key = IdempotencyKey::new("k-1");
        assert_eq!(
            (key.as_str(), key.as_ref(), key.to_string().as_str()),
            ("k-1", "k-1", "k-1")
        );
        assert_eq!(format!("{key:?}"), "IdempotencyKey(…)");
        assert_eq!(String::from(key), "k-1");
    }
}
