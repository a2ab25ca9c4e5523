//! Faults at random, and the same again from the same seed.

use super::fault::{Fault, Operation};

/// Draws from a seed what becomes of each call to a [`FaultStore`](super::FaultStore).
///
/// The same seed gives the same faults to the same sequence of calls.
#[derive(Clone, Debug)]
#[must_use]
pub struct FaultMix {
    random: fastrand::Rng,
    rates: Vec<(Operation, Fault, f64)>,
}

impl FaultMix {
    /// A mix without any faults.
    pub fn seeded(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            rates: Vec::new(),
        }
    }

    /// Of the calls of `operation`, this share meets `fault`: 0.1 is one in ten. What the shares of
    /// one operation leave of 1 passes.
    pub fn rate(mut self, operation: Operation, fault: Fault, share: f64) -> Self {
        self.rates.push((operation, fault, share));
        self
    }

    /// As [`rate`](Self::rate), for every operation.
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
