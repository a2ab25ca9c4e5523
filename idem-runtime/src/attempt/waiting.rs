//! Lets an attempt wait until the layers above its handler have finished.

use std::task::{Context, Poll};
use std::{mem, thread};

use axum::response::Response;

use crate::attempt::ending::Ending;
use crate::attempt::settlement::Settlement;
use crate::attempt::work::{Stage, Work};
use crate::request::record_id::RecordId;
use crate::service::slot::Unsettled;
use crate::store::Record;

impl Work {
    /// Announces to the layer that the handler begins. Without a free slot, the attempt settles by itself.
    pub(super) fn begin(&mut self) {
        self.slot = self.offered.take().filter(|slot| slot.begin());
    }

    /// Moves an attempt whose handler has responded into its slot. Gives it back when it has to settle by
    /// itself.
    pub(super) fn wait(mut self: Box<Self>) -> Result<(), Box<Self>> {
        if !matches!(self.stage, Stage::Waiting(_)) {
            return Ok(());
        }
        // Taken out, because a slot that its own attempt refers to would never be dropped.
        match self.slot.take() {
            Some(slot) => slot.finish(self),
            None => Err(self),
        }
    }

    /// Frees the slot for other attempts. From now on, this attempt settles without waiting for the layers.
    pub(super) fn withdraw(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.withdraw();
        }
    }

    /// Whether the layers above the handler are cut off, and the handler with them.
    ///
    /// While a panic unwinds, a layer drops its handler before it is dropped itself.
    pub(super) fn is_cut_off_with_layers(&self) -> bool {
        let slot = self.slot.as_ref();
        slot.is_some_and(|slot| thread::panicking() || slot.is_cut_off())
    }

    /// Decides how the attempt is settled when `response` leaves the layer. `settlement` is the decision that
    /// was made from the handler's own response.
    fn decide(
        &mut self,
        settlement: Settlement,
        response: &mut Response,
        has_panicked: bool,
    ) -> Settlement {
        let handlers = self.status;
        if has_panicked || matches!(settlement, Settlement::Abandon) {
            self.status = None;
            return Settlement::Abandon;
        }
        match Ending::of(self.policy, response) {
            Ending::Unknown => {
                self.status = None;
                return Settlement::Abandon;
            }
            Ending::Recorded if !matches!(settlement, Settlement::Release) => {}
            Ending::Recorded | Ending::Released => {
                self.status = None;
                return Settlement::Release;
            }
        }
        let has_failed = |status: http::StatusCode| status.as_u16() >= 400;
        let failed_above = has_failed(response.status()) && !handlers.is_some_and(has_failed);
        if failed_above {
            // The layers failed, so a replay of the handler's success would be wrong. A rerun could repeat the effect.
            return self.not_kept(response.status());
        }
        settlement
    }
}

impl Unsettled for Work {
    fn id(&self) -> RecordId {
        self.holder.id
    }

    fn record(&self) -> Option<&Record> {
        match &self.stage {
            Stage::Waiting(Settlement::Complete { record, .. }) => Some(record),
            _ => None,
        }
    }

    fn keep(&mut self) {
        Self::keep(self);
    }

    fn detach(&mut self) {
        self.detached();
    }

    fn leave(&mut self, mut response: Response, has_panicked: bool) {
        if let Stage::Waiting(settlement) = mem::replace(&mut self.stage, Stage::Ended) {
            let settlement = self.decide(settlement, &mut response, has_panicked);
            self.stage = self.settling(settlement, response);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        Self::poll(self, cx)
    }

    fn cut_off(&mut self) {
        match self.stage {
            Stage::Ended | Stage::Overtaken(_) | Stage::Settled(_) => {}
            // It is unknown whether the layers would have finished.
            Stage::Waiting(_) => self.settle_unattended(Settlement::Abandon),
            _ => Self::cut_off(self),
        }
    }
}
