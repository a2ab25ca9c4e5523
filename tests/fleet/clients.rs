//! Sends operations with the client of `idem-client`, while processes are killed and responses are lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use idem_client::{ClientBuilder, Policy, ResponseExt as _};

use crate::fault_proxy::FaultProxy;
use crate::member::{Fleet, Member};
use crate::{Backend, LEASE};

const OPERATIONS: usize = 500;
const KILLS: usize = 3;

/// The proxy loses every third response. Every operation gets one response, and only runs of killed processes are
/// repeated.
#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_client_succeeds_while_processes_are_killed() {
    let [redis, _] = Backend::servers();
    let mut fleet = Fleet::start(&redis.url(), LEASE).await;
    let upstreams = vec![fleet.one.server.0, fleet.other.server.0];
    let proxy = FaultProxy::start(upstreams).await.expect("a free port");
    let policy = Policy::default()
        .waits(Duration::from_millis(20), Duration::from_millis(200))
        .try_timeout(2 * LEASE);
    let client = ClientBuilder::default().policy(policy).build();
    let (client, url) = (
        client.expect("a client"),
        format!("http://{}/effect", proxy.address()),
    );

    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    let send = move |_| {
        // The handler continues for 5 ms after its effect.
        let request = client.post(&url).bearer_auth("alice").body("5");
        let count = count.clone();
        async move {
            let response = request.send().await.expect("a response");
            assert_eq!(response.status(), 200);
            count.fetch_add(1, Ordering::SeqCst);
            response.idempotency_key().expect("a key").to_owned()
        }
    };
    let operations = stream::iter(0..OPERATIONS).map(send).buffer_unordered(16);
    let operations = tokio::spawn(operations.collect::<BTreeSet<_>>());

    let mut killed = BTreeSet::new();
    for turn in 0..KILLS {
        // A kill in each quarter of the operations.
        while done.load(Ordering::SeqCst) < (turn + 1) * OPERATIONS / (KILLS + 1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let at = turn % 2;
        let member = if at == 0 {
            &mut fleet.one
        } else {
            &mut fleet.other
        };
        killed.insert(member.id());
        member.kill();
        *member = Member::start(&redis.url(), LEASE, &fleet.folder).await;
        proxy.replace(at, member.server.0);
    }
    let keys = operations.await.expect("no panic");
    assert_eq!(keys.len(), OPERATIONS);
    let effects = fleet.effects();
    assert_eq!(effects.keys().cloned().collect::<BTreeSet<_>>(), keys);
    for (key, effects) in effects {
        let (_, before) = effects.split_last().expect("an effect");
        let is_explained = before.iter().all(|(_, process)| killed.contains(process));
        assert!(is_explained, "{key} ran twice without a kill: {effects:?}");
    }
    assert!(proxy.requests() >= OPERATIONS + proxy.requests() / 3);
}
