//! Faults drawn from a seed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use turmoil::Sim;

use crate::{CLIENTS, SERVICES, STORE};

/// How far the clock of a host has jumped.
#[derive(Clone, Default)]
pub(crate) struct Skew(Arc<AtomicU64>);

impl Skew {
    pub(crate) fn total(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Advances the clock of this host whenever the skew grows.
    pub(crate) async fn follow(self) {
        let mut followed = self.total();
        loop {
            sleep(Duration::from_millis(50)).await;
            let jump = self.total().saturating_sub(followed);
            if !jump.is_zero() {
                followed += jump;
                tokio::time::advance(jump).await;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Whole,
    /// Messages are lost.
    Cut,
    /// Messages are delayed.
    Held,
}

pub(crate) struct Chaos {
    random: fastrand::Rng,
    links: Vec<(&'static str, &'static str, Link)>,
    down: Vec<&'static str>,
    skews: HashMap<&'static str, Skew>,
    count: usize,
}

impl Chaos {
    pub(crate) fn new(seed: u64) -> Self {
        let to_store = SERVICES.into_iter().map(|service| (service, STORE));
        let to_services = CLIENTS
            .into_iter()
            .flat_map(|client| SERVICES.into_iter().map(move |service| (client, service)));
        let links = to_store.chain(to_services);
        Self {
            random: fastrand::Rng::with_seed(seed),
            links: links.map(|(a, b)| (a, b, Link::Whole)).collect(),
            down: Vec::new(),
            skews: HashMap::new(),
            count: 0,
        }
    }

    pub(crate) fn skew(&mut self, host: &'static str) -> Skew {
        self.skews.entry(host).or_default().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Causes or repairs a fault about every third of a second.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>) {
        if self.random.u8(..13) > 0 {
            return;
        }
        self.count += 1;
        match self.random.u8(..10) {
            0..6 => {
                let link = self.random.usize(..self.links.len());
                let next = match self.links[link].2 {
                    Link::Whole if self.random.bool() => Link::Cut,
                    Link::Whole => Link::Held,
                    Link::Cut | Link::Held => Link::Whole,
                };
                self.set(sim, link, next);
            }
            6..9 => {
                let hosts = [SERVICES[0], SERVICES[1], STORE];
                let host = *self.random.choice(&hosts).expect("three hosts");
                if let Some(at) = self.down.iter().position(|down| *down == host) {
                    self.down.remove(at);
                    sim.bounce(host);
                } else {
                    self.down.push(host);
                    sim.crash(host);
                }
            }
            _ => {
                let hosts = [SERVICES[0], SERVICES[1], STORE];
                let host = *self.random.choice(&hosts).expect("three hosts");
                let jump = self.random.u64(..5_000);
                self.skew(host).0.fetch_add(jump, Ordering::Relaxed);
            }
        }
    }

    fn set(&mut self, sim: &Sim<'_>, link: usize, next: Link) {
        let (a, b, now) = self.links[link];
        match (now, next) {
            (Link::Cut, _) => sim.repair(a, b),
            (Link::Held, _) => sim.release(a, b),
            (Link::Whole, _) => {}
        }
        match next {
            Link::Cut => sim.partition(a, b),
            Link::Held => sim.hold(a, b),
            Link::Whole => {}
        }
        self.links[link].2 = next;
    }

    /// Repairs all faults.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        for link in 0..self.links.len() {
            self.set(sim, link, Link::Whole);
        }
        for host in self.down.drain(..) {
            sim.bounce(host);
        }
    }
}
