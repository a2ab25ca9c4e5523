//! Carries out the changes of operators, and logs each of them.

use std::error::Error;
use std::future::Future;

use http::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::api::failed;
use super::refusal::Refusal;
use crate::request::record_id::RecordId;
use crate::service::background::spawn;
use crate::service::idempotency::Idempotency;
use crate::store::StoreError;
use crate::trace;

/// A change of a record by an operator.
pub(super) struct Change {
    pub(super) id: RecordId,
    pub(super) reason: String,
    pub(super) decision: Decision,
}

/// What an operator has decided about a record.
pub(super) enum Decision {
    Forget {
        /// The version of the record that the page has shown.
        seen: String,
    },
    Resolve(Resolution),
}

/// The response that retries get. Its headers and its body are not logged.
pub(super) struct Resolution {
    pub(super) fence: u64,
    pub(super) status: u16,
    pub(super) ttl_seconds: u64,
    pub(super) body_bytes: usize,
}

/// Carries out a change, and logs it. Returns whether the change had an effect.
///
/// When a client disconnects, the server drops the future of its request. So the change runs in a task of its own, for
/// which `drain` waits.
pub(super) async fn carry_out(
    idem: &Idempotency,
    change: Change,
    call: impl Future<Output = Result<bool, StoreError>> + Send + 'static,
) -> Result<bool, Refusal> {
    let (sender, receiver) = oneshot::channel();
    let task = async move {
        let result = call.await;
        change.log(&result);
        // The client may have disconnected.
        let _ = sender.send(result);
    };
    let tracked = Some(idem.attempts().token());
    spawn(&Handle::current(), trace::current_span(), tracked, task);
    match receiver.await {
        Ok(result) => result.map_err(|error| failed(&error)),
        // The store has panicked.
        Err(_) => Err(Refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the change ended early; it may have taken effect".to_owned(),
        )),
    }
}

impl Change {
    /// A change whose call failed may have taken effect, so it is logged too.
    fn log(&self, result: &Result<bool, StoreError>) {
        let message = match result {
            Ok(_) => "an operator changed a record in the console",
            Err(_) => "an operator's change in the console failed; it may have taken effect",
        };
        let (action, seen, resolution) = match &self.decision {
            Decision::Forget { seen } => ("forget", Some(seen), None),
            Decision::Resolve(resolution) => ("resolve", None, Some(resolution)),
        };
        let error = result.as_ref().err();
        tracing::info!(
            target: trace::TARGET,
            action,
            record = %self.id.short(),
            record_id = %self.id,
            reason = self.reason,
            seen,
            fence = resolution.map(|it| it.fence),
            status = resolution.map(|it| it.status),
            ttl_seconds = resolution.map(|it| it.ttl_seconds),
            body_bytes = resolution.map(|it| it.body_bytes),
            is_done = result.as_ref().ok(),
            error = error.map(|error| error as &(dyn Error + 'static)),
            "{message}"
        );
    }
}
