//! Random faults that a seed reproduces.

use super::fault::Fault;
use crate::observe::Operation;

/// Draws a fault for each call to a [`FaultStore`](super::FaultStore) at random.
///
/// The same seed draws the same faults for the same sequence of calls.
#[derive(Clone, Debug)]
#[must_use]
pub struct FaultMix {
    random: fastrand::Rng,
    rates: Vec<(Operation, Fault, f64)>,
}

impl FaultMix {
    /// Returns a mix without faults.
    pub fn seeded(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            rates: Vec::new(),
        }
    }

    /// Adds a fault for a share of the calls of `operation`: 0.1 means one call in ten. Calls
    /// without a fault pass. The shares of one operation should add up to at most 1.
    pub fn rate(mut self, operation: Operation, fault: Fault, share: f64) -> Self {
        self.rates.push((operation, fault, share));
        self
    }

    /// Like [`rate`](Self::rate), for every operation.
    pub fn rate_of_all(self, fault: Fault, share: f64) -> Self {
        let rate = |mix: Self, operation| mix.rate(operation, fault, share);
        Operation::ALL.into_iter().fold(self, rate)
    }

    pub(super) fn draw(&mut self, operation: Operation) -> Option<Fault> {
        let mut drawn = self.random.f64();
        let of_this = self.rates.iter().filter(|(of, _, _)| *of == operation);
        for (_, fault, share) in of_this {
            if drawn < *share {
                return Some(*fault);
            }
            drawn -= share;
        }
        None
    }
}
