//! Each example with `STORE=sqlite://…` replays after its process was killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use http::Method;

use crate::examples::{aleta, iex, phantom, trades, yoshi};
use crate::support::{Answer, Server, request};

const EXAMPLE: &str = "AXUM_IDEM_TEST_EXAMPLE";

/// Not a test. The test below starts this function as a process that it can kill.
#[test]
fn example_in_a_process() {
    let Ok(example) = std::env::var(EXAMPLE) else {
        return;
    };
    let ended = match example.as_str() {
        "aleta" => aleta::main(),
        "iex" => iex::main(),
        "phantom" => phantom::main(),
        "trades" => trades::main(),
        "yoshi" => yoshi::main(),
        other => panic!("no example {other}"),
    };
    ended.expect("it serves until it is killed");
}

/// The process of an example. Ends with the test.
struct Process {
    child: Child,
    server: Server,
}

impl Process {
    fn start(example: &str, file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the path of this binary"))
            .args(["restarts::example_in_a_process", "--exact", "--nocapture"])
            .env(EXAMPLE, example)
            .env("STORE", format!("sqlite://{}", file.display()))
            .env("PORT", "0")
            .env("ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut lines = output.lines().map_while(Result::ok);
        let address = lines.find_map(|line| {
            let (before, address) = line.split_once(" on http://")?;
            before.contains("listen").then(|| address.parse().ok())?
        });
        // Reads on, so that the process never writes to a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            server: Server(address.expect("the example serves")),
            child,
        }
    }

    /// Sends a request, also before the example has opened its store.
    async fn post(&self, of: &Write, key: &str) -> Answer {
        let authorization = format!("Bearer {}", of.token);
        let headers = [
            ("authorization", authorization.as_str()),
            ("idempotency-key", key),
            ("content-type", "application/json"),
        ];
        let request = request(Method::POST, of.path, headers, of.body);
        self.server.send(request).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may already have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
        let process = Process::start(write.example, &file);
        let first = process.post(write, "create-a").await;
        assert_eq!(first.status, 201, "{}: {first:?}", write.example);
        let second = process.post(write, "create-b").await;
        assert_ne!(second.body, first.body, "{}", write.example);
        drop(process);

        let process = Process::start(write.example, &file);
        let retry = process.post(write, "create-b").await;
        assert_eq!(retry.status, 201, "{}: {retry:?}", write.example);
        assert_eq!(retry.body, second.body, "{}", write.example);
        let new = process.post(write, "create-c").await;
        assert_eq!(new.body, first.body, "{} did not restart", write.example);
    }
}
