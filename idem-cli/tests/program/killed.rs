//! An operator finds and resolves the key of a killed process, in a terminal.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use axum_idem::Idempotency;
use axum_idem::store::SqliteStore;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use test_support::http::{PATIENCE, Server, request};
use tokio::net::TcpListener;

use crate::harness::Program;

#[path = "../../../examples/desk/mod.rs"]
mod desk;

const FILE: &str = "AXUM_IDEM_TEST_FILE";
const ADDRESS: &str = "serves at ";

/// Not a test. [`Desk::start`] starts this function as a process that it can kill.
#[tokio::test]
async fn desk_in_a_process() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let store = SqliteStore::open(path).await.expect("the file opens");
    let idem = Idempotency::builder().store(store).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{ADDRESS}{}", listener.local_addr().expect("an address"));
    let served = axum::serve(listener, desk::router(idem)).await;
    served.expect("it serves until it is killed");
}

/// The desk of the example `trades`, in a process.
struct Desk {
    child: Child,
    server: Server,
}

impl Desk {
    fn start(file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the path of this binary"))
            .args(["killed::desk_in_a_process", "--exact", "--nocapture"])
            .env(FILE, file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut lines = output.lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.split_once(ADDRESS)?.1.parse().ok());
        // Reads on, so that the process never writes to a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            server: Server(address.expect("the desk serves")),
            child,
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // The process may already have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A trade that takes three seconds.
fn trade() -> Request<Full<Bytes>> {
    let headers = [
        ("authorization", "Bearer SECRET-alice.1"),
        ("idempotency-key", "SECRET-trade"),
        ("content-type", "application/json"),
    ];
    let order = r#"{"symbol": "SECRET", "side": "buy", "quantity": 10}"#;
    request(Method::POST, "/accounts/7/slow-trades", headers, order)
}

/// The id and the fence of each record in this state, when there are some.
async fn listed(program: &Program, state: &str) -> Vec<(String, String)> {
    let look = async {
        loop {
            let ran = program.run(&["list", "--state", state, "--json"]);
            assert_eq!(ran.code, 0, "{ran:?}");
            assert!(!ran.stdout.contains("SECRET"), "{ran:?}");
            let found: Vec<_> = ran
                .json()
                .iter()
                .map(|it| (it["id"].to_string(), it["fence"].to_string()))
                .collect();
            if !found.is_empty() {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, look).await;
    found.unwrap_or_else(|_| panic!("there is no record in the state {state}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_killed_process_is_found_and_resolved_in_a_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trades.db");
    let program = Program::new(format!("sqlite://{}", file.display()));
    let desk = Desk::start(&file);
    let server = desk.server;
    let running = tokio::spawn(async move { server.try_send(trade()).await.is_ok() });
    let in_flight = listed(&program, "in-flight").await;
    drop(desk);
    assert!(!running.await.expect("no panic"), "the handler has ended");

    let desk = Desk::start(&file);
    let unknown = listed(&program, "unknown").await;
    assert_eq!(unknown, in_flight);
    let resolve = [
        "resolve",
        unknown[0].0.trim_matches('"'),
        "--fence",
        &unknown[0].1,
        "--status",
        "201",
        "--header",
        "content-type: text/plain",
        "--body-file",
        "-",
        "--ttl",
        "1h",
        "--reason",
        "the exchange has booked it, ticket 512",
    ];
    let resolved = program.run_with(&resolve, "booked by hand");
    assert_eq!(resolved.code, 0, "{resolved:?}");
    let retry = desk.server.send(trade()).await;
    assert_eq!(retry.status, StatusCode::CREATED, "{retry:?}");
    assert!(retry.is_replay(), "{retry:?}");
    assert_eq!(retry.text(), "booked by hand");
}
