//! Returns the state of a key to its caller.

use crate::request::scope::Scope;
use crate::response::key_status::KeyStatus;
use crate::response::problem::Problem;
use crate::service::idempotency::Idempotency;

impl Idempotency {
    /// Returns the state of `key` in `scope`, for an endpoint that lets a caller ask for the outcome
    /// of a request without sending the request again. Changes nothing.
    ///
    /// Pass the key without the quotes of the header. Use the scope of the caller that asks: with the scope of
    /// another caller, the response would reveal the requests of that caller. The result is a response:
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use axum::extract::{Path, State};
    /// use axum::response::IntoResponse;
    /// use axum::{Router, routing::get};
    /// use axum_idem::{Idempotency, Scope};
    ///
    /// # struct User { id: u64 }
    /// # impl<S: Sync> axum::extract::FromRequestParts<S> for User {
    /// #     type Rejection = axum::http::StatusCode;
    /// #     async fn from_request_parts(
    /// #         _: &mut axum::http::request::Parts,
    /// #         _: &S,
    /// #     ) -> Result<Self, Self::Rejection> {
    /// #         Ok(Self { id: 1 })
    /// #     }
    /// # }
    /// async fn order_status(
    ///     State(idem): State<Idempotency>,
    ///     user: User,
    ///     Path(key): Path<String>,
    /// ) -> impl IntoResponse {
    ///     idem.status(&Scope::new().value(user.id), &key).await
    /// }
    ///
    /// let router: Router = Router::new()
    ///     .route("/orders/by-key/{key}", get(order_status))
    ///     .with_state(Idempotency::in_memory());
    /// ```
    ///
    /// If this process holds a record that the store did not accept in time, the key counts as recorded. Cancel-safe.
    ///
    /// # Errors
    ///
    /// 503 `idempotency_store_unavailable` in the dialect of the service, if the store fails, does not reply in
    /// time, or holds an entry that cannot be decoded. The log contains the error of the store.
    pub async fn status(&self, scope: &Scope, key: &str) -> Result<KeyStatus, Problem> {
        let id = self.record_id(scope, key);
        if let Some(record) = self.inner.unwritten.find(&id) {
            let (status, kept) = (record.status(), record.is_kept());
            return Ok(KeyStatus::Recorded { status, kept });
        }
        match self.look_up(id).await {
            Ok(entry) => Ok(KeyStatus::of(entry.as_ref())),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    target: crate::trace::TARGET,
                    error,
                    record = %id.short(),
                    "the status of a key cannot be read"
                );
                let problem = Problem::status_unavailable().about(Some(id));
                Err(problem.in_dialect(&self.inner.settings.dialect))
            }
        }
    }
}
