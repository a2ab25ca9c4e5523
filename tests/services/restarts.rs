//! Each example with `STORE=sqlite://…` replays after its process was killed.

use http::Method;

use crate::process::Process;
use crate::support::{Answer, request};

/// Sends a request, also before the example has opened its store.
async fn post(process: &Process, of: &Write, key: &str) -> Answer {
    let authorization = format!("Bearer {}", of.token);
    let headers = [
        ("authorization", authorization.as_str()),
        ("idempotency-key", key),
        ("content-type", "application/json"),
    ];
    let request = request(Method::POST, of.path, headers, of.body);
    process.server.send(request).await
}

struct Write {
    example: &'static str,
    path: &'static str,
    token: &'static str,
    body: &'static str,
}

const ORDER: &str = r#"{"symbol": "AAPL", "side": "buy", "quantity": 10}"#;

const WRITES: [Write; 5] = [
    Write {
        example: "aleta",
        path: "/v1/accounts",
        token: "aleta_sandbox_acme_1",
        body: r#"{"entity_id": "ent_1", "institution": "Nordea"}"#,
    },
    Write {
        example: "iex",
        path: "/v1/orders",
        token: "iex_alice",
        body: r#"{"pair": "BTC-USD", "side": "buy", "amount": "0.5"}"#,
    },
    Write {
        example: "phantom",
        path: "/api/v1/cases",
        token: "phk_live_1",
        body: r#"{"user_id": "123", "type": "warn", "reason": "spam"}"#,
    },
    Write {
        example: "trades",
        path: "/accounts/7/trades",
        token: "alice.1",
        body: ORDER,
    },
    Write {
        example: "yoshi",
        path: "/v1/paper-trading/accounts/1/trades",
        token: "yoshi_alice_1",
        body: ORDER,
    },
];

/// An example numbers what it creates from 1, and forgets its numbers with its process. So a second run
/// of the second request would get number 1.
#[tokio::test(flavor = "multi_thread")]
async fn an_example_with_a_file_replays_after_it_was_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    for write in &WRITES {
        let file = folder.path().join(write.example);
        let process = Process::start(write.example, Some(&file)).ignore_output();
        let first = post(&process, write, "create-a").await;
        assert_eq!(first.status, 201, "{}: {first:?}", write.example);
        let second = post(&process, write, "create-b").await;
        assert_ne!(second.body, first.body, "{}", write.example);
        drop(process);

        let process = Process::start(write.example, Some(&file)).ignore_output();
        let retry = post(&process, write, "create-b").await;
        assert_eq!(retry.status, 201, "{}: {retry:?}", write.example);
        assert_eq!(retry.body, second.body, "{}", write.example);
        let new = post(&process, write, "create-c").await;
        assert_eq!(new.body, first.body, "{} did not restart", write.example);
    }
}
