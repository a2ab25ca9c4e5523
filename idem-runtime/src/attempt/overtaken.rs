//! The response to a client whose attempt was overtaken by another attempt at the same key.

use axum::response::Response;

use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::response::degraded;
use crate::response::problem::Problem;
use crate::service::idempotency::Idempotency;
use crate::store::{Entry, Record};

/// The response of the attempt that has taken over, because all retries will get that response.
///
/// `own` is the response of the overtaken attempt. The client gets `own` where the store holds nothing
/// about this request, or cannot be asked.
pub(super) async fn response(
    idem: Idempotency,
    id: RecordId,
    fingerprint: Fingerprint,
    own: Response,
) -> Response {
    let is_same = |record: &Record| record.fingerprint() == fingerprint;
    if let Some(record) = idem.unwritten().find(&id).filter(is_same) {
        return degraded::unrecorded(idem.replay(&record));
    }
    match idem.look_up(id).await {
        Ok(Some(Entry::Recorded { record, .. })) if is_same(&record) => idem.replay(&record),
        Ok(Some(Entry::InFlight {
            fingerprint: winners,
            ..
        })) if winners == fingerprint => idem.refuse(Problem::key_in_flight()),
        _ => own,
    }
}
