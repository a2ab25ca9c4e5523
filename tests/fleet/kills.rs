//! Kills and stops processes at random times and checks the effects that remain.
//!
//! `IDEM_SEED=7` selects other times, and `IDEM_KILLS=200` more of them. The same seed gives the same
//! times. The scheduler of the operating system still varies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::member::{Fleet, Member, SEALED};
use crate::support::{self, Answer, Server};
use crate::{Backend, LEASE};

const CLIENTS: usize = 6;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// The clients, the servers that they use, and the responses that they got.
#[derive(Default)]
struct Town {
    servers: Mutex<Vec<Server>>,
    /// For each key, the body that was sent and each response, with whether the response was a replay.
    answers: Mutex<BTreeMap<String, Told>>,
    retries: AtomicUsize,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Told {
    body: String,
    answers: Vec<(String, bool)>,
}

impl Town {
    /// Sends one key after another until each key has a response. Sends some keys twice.
    async fn write(self: Arc<Self>, client: usize, mut random: fastrand::Rng) {
        let mut turn = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            let key = format!("{client}-{turn}");
            // How long the run continues after its effect, in milliseconds.
            let body = random.u8(..30).to_string();
            for _ in 0..random.u8(1..3) {
                let answer = self.until_answered(&key, &body, &mut random).await;
                // A response that is marked as degraded may differ from the record: the process that sent
                // the response had not written the record yet.
                let is_degraded = answer.headers.contains_key("idempotency-degraded");
                let is_replay = answer.is_replay() && !is_degraded;
                let answer = (answer.text().to_owned(), is_replay);
                let mut answers = self.answers.lock().expect("no panic");
                let told = answers.entry(key.clone()).or_default();
                told.body.clone_from(&body);
                told.answers.push(answer);
            }
            turn += 1;
        }
    }

    async fn until_answered(&self, key: &str, body: &str, random: &mut fastrand::Rng) -> Answer {
        loop {
            let server = *random
                .choice(self.servers.lock().expect("no panic").iter())
                .expect("the fleet has servers");
            let request = server.try_send(support::post("/effect", key, body));
            if let Ok(Ok(answer)) = tokio::time::timeout(LEASE, request).await {
                if answer.status == 200 {
                    return answer;
                }
                let passes = ["idempotency_key_in_flight", "idempotency_store_unavailable"];
                assert!(passes.contains(&answer.code().as_str()), "{answer:?}");
            }
            self.retries.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(random.u64(5..25))).await;
        }
    }
}

/// Every effect of a key, except that of its last attempt, comes from a process that was killed or stopped.
/// Every response comes from the recorded attempt or from such a process.
#[tokio::test(flavor = "multi_thread")]
async fn only_runs_of_killed_or_stopped_processes_are_repeated() {
    let (seed, kills) = (number("IDEM_SEED", 1), number("IDEM_KILLS", 4));
    println!("IDEM_SEED={seed} IDEM_KILLS={kills}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sealed = [Backend::redis(), Backend::Sqlite(folder)];
    let names = [
        "redis",
        "postgres",
        "sqlite",
        "sealed redis",
        "sealed sqlite",
    ];
    for (backend, name) in Backend::all().into_iter().chain(sealed).zip(names) {
        let seal = if name.starts_with("sealed") {
            SEALED
        } else {
            ""
        };
        let url = format!("{seal}{}", backend.url());
        let mut random = fastrand::Rng::with_seed(seed);
        let mut fleet = Fleet::start(&url, LEASE).await;
        let town = Arc::new(Town::default());
        *town.servers.lock().expect("no panic") = vec![fleet.one.server, fleet.other.server];
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| tokio::spawn(town.clone().write(client, random.fork())))
            .collect();
        let mut harmed = BTreeSet::new();
        for turn in 0..kills {
            tokio::time::sleep(Duration::from_millis(random.u64(100..400))).await;
            let at = random.usize(..2);
            let member = if at == 0 {
                &mut fleet.one
            } else {
                &mut fleet.other
            };
            harmed.insert(member.id());
            if turn % 4 == 3 {
                member.stop();
                tokio::time::sleep(3 * LEASE).await;
                member.go_on();
            } else {
                member.kill();
                *member = Member::start(&url, LEASE, &fleet.folder).await;
                town.servers.lock().expect("no panic")[at] = member.server;
            }
        }
        town.is_over.store(true, Ordering::SeqCst);
        for client in clients {
            client.await.expect("no panic");
        }
        let again = check(&fleet, &town, &harmed, name).await;
        println!(
            "{name}: {kills} processes killed or stopped, {} keys, {again} ran again, {} failed tries",
            fleet.effects().len(),
            town.retries.load(Ordering::SeqCst),
        );
    }
}

/// Returns the number of keys that have more than one effect.
async fn check(fleet: &Fleet, town: &Town, harmed: &BTreeSet<u32>, name: &str) -> usize {
    let effects = fleet.effects();
    let mut again = 0;
    for (key, effects) in &effects {
        // A stopped process may have its effect after that of its successor, so the attempts are
        // sorted.
        let by_attempt: BTreeMap<_, _> = effects.iter().copied().collect();
        assert_eq!(by_attempt.len(), effects.len(), "{name} {key}: {effects:?}");
        let mut before = by_attempt.values().rev().skip(1);
        let is_explained = before.all(|process| harmed.contains(process));
        assert!(
            is_explained,
            "{name} {key} ran twice without a kill: {effects:?}"
        );
        again += usize::from(effects.len() > 1);
    }
    let answers = std::mem::take(&mut *town.answers.lock().expect("no panic"));
    assert!(answers.len() >= CLIENTS, "{name}: {} keys", answers.len());
    for (key, told) in answers {
        let replay = town
            .until_answered(&key, &told.body, &mut fastrand::Rng::with_seed(1))
            .await;
        assert!(replay.is_replay(), "{name} {key} was forgotten");
        for (text, is_replay) in told.answers {
            let number = text
                .strip_prefix("attempt ")
                .expect("the number of an attempt");
            let effect = effects[&key]
                .iter()
                .find(|(attempt, _)| attempt.to_string() == number);
            let (_, process) =
                effect.unwrap_or_else(|| panic!("{name} {key}: no effect of {text}"));
            let is_overtaken = !is_replay && harmed.contains(process);
            assert!(
                text == replay.text() || is_overtaken,
                "{name} {key}: {text}"
            );
        }
    }
    again
}
