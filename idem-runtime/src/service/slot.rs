//! Where the attempt of one request waits for the layers above its handler.
//!
//! Layers between the [`Idempotency`](crate::Idempotency) layer and the handler may still fail after the
//! handler has responded: one of them commits a transaction. So the attempt is settled when the response
//! leaves the `Idempotency` layer. Until then the attempt waits in a slot, which the layer shares with the
//! handler through the extensions of the request. A response could not carry the attempt, because layers
//! replace responses and drop extensions.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::{fmt, mem};

use axum::response::Response;
use http::HeaderValue;

use crate::request::record_id::RecordId;
use crate::store::Record;

/// An attempt whose handler has responded, and which is settled when the response leaves the layer.
pub(crate) trait Unsettled: Send {
    /// The record that the attempt is about.
    fn id(&self) -> RecordId;

    /// The record to write, unless the attempt ends without one.
    fn record(&self) -> Option<&Record>;

    /// Renews the lease from now on.
    fn keep(&mut self);

    /// Reports that the attempt runs in the background from now on.
    fn detach(&mut self);

    /// Begins to settle the attempt, now that `response` leaves the layer.
    fn leave(&mut self, response: Response, has_panicked: bool);

    /// The response, once the store has replied.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response>;

    /// Settles the attempt when the outcome of the layers stays unknown. Does nothing after the attempt is settled.
    fn cut_off(&mut self);
}

/// An [`Unsettled`] attempt. If this is dropped before the attempt is settled, the attempt is cut off.
pub(crate) struct Finished(Box<dyn Unsettled>);

impl Finished {
    pub(crate) fn keep(&mut self) {
        self.0.keep();
    }

    pub(crate) fn detach(&mut self) {
        self.0.detach();
    }

    /// Begins to settle the attempt. Completes with `response`, or with the response that takes its place.
    pub(crate) fn leave(mut self, response: Response, has_panicked: bool) -> Self {
        self.0.leave(response, has_panicked);
        self
    }
}

impl Future for Finished {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        self.0.poll(cx)
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.cut_off();
    }
}

/// Where the attempt of one request waits for the layers above its handler.
#[derive(Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    has_panicked: AtomicBool,
    /// Whether the layers run in the background. A handler that runs reads it when it is polled.
    in_background: AtomicBool,
}

#[derive(Default)]
enum State {
    /// No handler runs under a claim. A refusal or a replay does not change this state.
    #[default]
    Empty,
    /// A handler runs under a claim.
    Running,
    /// The handler has responded.
    Finished(Finished),
    /// The layer has responded. A handler that still runs settles its attempt by itself.
    Left,
    /// The layers were cut off. A handler that is dropped with them is cut off too.
    CutOff,
}

/// The result of an earlier call of the handler in the same request.
pub(crate) enum Earlier {
    /// Nothing about the same record.
    Nothing,
    /// A record that is not written yet.
    Record(Record),
    /// An attempt that ends without a record.
    Unrecorded(Finished),
}

impl Slot {
    /// Announces that a handler runs. Returns whether its attempt may wait here; it settles by itself
    /// otherwise.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        let is_free = matches!(*state, State::Empty);
        if is_free {
            *state = State::Running;
        }
        is_free
    }

    /// The layers move to the background, and with them the attempt.
    pub(crate) fn detach(&self) {
        let mut state = self.lock();
        self.in_background.store(true, Ordering::Release);
        if let State::Finished(finished) = &mut *state {
            finished.detach();
        }
    }

    pub(crate) fn is_in_background(&self) -> bool {
        self.in_background.load(Ordering::Acquire)
    }

    /// Takes an attempt whose handler has responded. Gives it back when the layer no longer waits.
    pub(crate) fn finish<A: Unsettled + 'static>(&self, attempt: Box<A>) -> Result<(), Box<A>> {
        let mut state = self.lock();
        if !matches!(*state, State::Running) {
            return Err(attempt);
        }
        *state = State::Finished(Finished(attempt));
        Ok(())
    }

    /// Empties the slot: the announced handler has ended, or continues without the layers.
    pub(crate) fn withdraw(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Running) {
            *state = State::Empty;
        }
    }

    /// Whether the layers were cut off.
    pub(crate) fn is_cut_off(&self) -> bool {
        matches!(*self.lock(), State::CutOff)
    }

    /// Whether another handler may still begin here.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(*self.lock(), State::Left | State::CutOff)
    }

    /// Returns the result of an earlier call of the handler for this record.
    pub(crate) fn earlier(&self, id: RecordId) -> Earlier {
        let mut state = self.lock();
        match &*state {
            State::Finished(Finished(attempt)) if attempt.id() == id => {
                if let Some(record) = attempt.record() {
                    return Earlier::Record(record.clone());
                }
            }
            _ => return Earlier::Nothing,
        }
        match mem::take(&mut *state) {
            State::Finished(finished) => Earlier::Unrecorded(finished),
            _ => Earlier::Nothing,
        }
    }

    /// Renews the lease of an attempt that waits for its layers. Returns whether an attempt waits.
    pub(crate) fn keep(&self) -> bool {
        let mut state = self.lock();
        let State::Finished(finished) = &mut *state else {
            return false;
        };
        finished.keep();
        true
    }

    /// Whether an attempt runs or waits. If not, closes the slot, so that no later attempt waits here.
    pub(crate) fn is_engaged_or_ends(&self) -> bool {
        let mut state = self.lock();
        let is_engaged = matches!(*state, State::Running | State::Finished(_));
        if !is_engaged {
            *state = State::Left;
        }
        is_engaged
    }

    /// The response leaves the layer. Returns the attempt that is to be settled.
    pub(crate) fn leave(&self) -> Option<Finished> {
        self.end(State::Left)
    }

    /// The layers are cut off, by a panic or with their runtime. An attempt that waits is cut off.
    pub(crate) fn cut_off(&self) {
        // The attempt calls its store, so it is dropped after the lock.
        drop(self.end(State::CutOff));
    }

    fn end(&self, end: State) -> Option<Finished> {
        match mem::replace(&mut *self.lock(), end) {
            State::Finished(finished) => Some(finished),
            _ => None,
        }
    }

    /// A layer panicked while it held the handler's response.
    pub(crate) fn panicked(&self) {
        self.has_panicked.store(true, Ordering::Release);
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.has_panicked.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

/// The slot of one request, as the request's extensions carry it.
///
/// A layer that makes several requests out of one may clone the extensions into all of them. The
/// digest of the key shows to which request the slot belongs.
#[derive(Clone, Debug)]
pub(crate) struct SlotOf {
    pub(crate) slot: Arc<Slot>,
    key: u64,
}

impl SlotOf {
    pub(crate) fn new(slot: Arc<Slot>, key: &HeaderValue) -> Self {
        Self {
            slot,
            key: digest(key),
        }
    }

    /// Whether the slot belongs to the request with this key.
    pub(crate) fn is_of(&self, key: &HeaderValue) -> bool {
        self.key == digest(key)
    }
}

/// Distinguishes the keys of a few requests that come from one request. Measured: `SipHash` takes 300
/// instructions more for a keyed request.
fn digest(key: &HeaderValue) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    fn mix(digest: u64, word: u64) -> u64 {
        (digest ^ word).wrapping_mul(ODD).rotate_left(29)
    }

    let (words, rest) = key.as_bytes().as_chunks();
    let mut digest = rest.len() as u64;
    for word in words {
        digest = mix(digest, u64::from_le_bytes(*word));
    }
    let mut last = 0;
    for byte in rest {
        last = last << 8 | u64::from(*byte);
    }
    mix(digest, last)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn different_keys_have_different_digests() {
        let mut keys: Vec<String> = (0..40).map(|len| "k".repeat(len)).collect();
        for at in 0..36 {
            let mut key = [b'k'; 36];
            key[at] = b'l';
            keys.push(key.map(char::from).iter().collect());
        }
        keys.push("swappedWORDS....".to_owned());
        keys.push("WORDS....swapped".to_owned());
        let digests: HashSet<u64> = keys
            .iter()
            .map(|key| digest(&HeaderValue::from_str(key).expect("a value")))
            .collect();
        assert_eq!(digests.len(), keys.len());
    }
}
