//! Starts the program, and prepares records in a store.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum_idem::store::{Claim, Claimed, Holder, Keys, Origin, Record, Sealed, Settled, Store};
use axum_idem::{Fingerprint, Idempotency, RecordId, Scope};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// The result of one run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The objects in the lines of the output.
    pub(crate) fn json(&self) -> Vec<Value> {
        let lines = self.stdout.lines().map(serde_json::from_str);
        let lines: Result<_, _> = lines.collect();
        lines.unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The digits of the sealing key of the service, without the number.
pub(crate) const SEAL_KEY: &str =
    "5ec2e7000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c";
const ID_SECRET: &str = "SECRET of the ids of the service";

/// The program with its store, and with the secrets of the service.
pub(crate) struct Program {
    pub(crate) url: String,
    pub(crate) secrets: Vec<(&'static str, String)>,
}

impl Program {
    /// Of a service without secrets.
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            secrets: Vec::new(),
        }
    }

    /// Of a service with a sealed store and an id secret.
    pub(crate) fn sealed(url: String) -> Self {
        Self {
            url,
            secrets: vec![
                ("IDEM_SEAL_KEYS", format!("2:{SEAL_KEY}")),
                ("IDEM_ID_SECRET", ID_SECRET.to_owned()),
            ],
        }
    }

    /// The service.
    pub(crate) fn service(&self) -> Idempotency {
        let builder = Idempotency::builder().namespace("shop");
        let secret = self.secrets.iter().find(|it| it.0 == "IDEM_ID_SECRET");
        match secret {
            Some((_, secret)) => builder.id_secret(secret).build(),
            None => builder.build(),
        }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs the program with this standard input, which is no terminal.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        self.run_to(arguments, input, Stdio::piped(), Stdio::piped())
    }

    /// The program with pipes.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idem"));
        command
            .args(arguments)
            .env("IDEM_STORE", &self.url)
            .env("IDEM_NAMESPACE", "shop")
            .env_remove("IDEM_AUDIT_LOG")
            .env_remove("IDEM_SEAL_KEYS")
            .env_remove("IDEM_ID_SECRET")
            .envs(self.secrets.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program with this standard output and this standard error.
    pub(crate) fn run_to(
        &self,
        arguments: &[&str],
        input: &str,
        stdout: Stdio,
        stderr: Stdio,
    ) -> Ran {
        let mut command = self.command(arguments);
        let child = command.stdout(stdout).stderr(stderr).spawn();
        let mut child = child.expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // The program may end without reading.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the program ends");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran {
            code: output.status.code().expect("an exit code"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The sealed store of the service.
pub(crate) fn seal<S: Store>(store: S) -> Sealed<S> {
    let keys = format!("2:{SEAL_KEY}").parse::<Keys>();
    Sealed::around(store, keys.expect("a list of keys"))
}

/// The ids of the prepared records.
pub(crate) struct Prepared {
    pub(crate) recorded: RecordId,
    pub(crate) unknown: RecordId,
    /// The fence of the unknown attempt, as an argument.
    pub(crate) fence: String,
    pub(crate) in_flight: RecordId,
}

pub(crate) fn scope() -> Scope {
    Scope::new().value("SECRET-user")
}

/// Prepares one record in each state.
pub(crate) async fn prepare(program: &Program, store: &dyn Store) -> Prepared {
    let idem = program.service();
    let id = |key| idem.record_id(&scope(), key);
    let unknown = id("SECRET-unknown");
    let fence = claim(store, unknown, Duration::from_millis(1)).await.fence;
    let prepared = Prepared {
        recorded: id("SECRET-recorded"),
        unknown,
        fence: fence.to_string(),
        in_flight: id("SECRET-running"),
    };
    let holder = claim(store, prepared.recorded, HOUR).await;
    let mut headers = HeaderMap::new();
    let value = "SECRET-header".parse().expect("a value");
    headers.insert("x-customer", value);
    let body = b"{\"card\":\"SECRET-card\"}";
    let record = Record::answer(fingerprint(), StatusCode::CREATED, &headers, body);
    let record = record.expect("a small record");
    let settled = store.complete(holder, record, HOUR).await;
    assert!(matches!(settled, Ok(Settled::Done)), "{settled:?}");
    claim(store, prepared.in_flight, HOUR).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    prepared
}

fn fingerprint() -> Fingerprint {
    Fingerprint::from_bytes([7; 32])
}

pub(crate) async fn claim(store: &dyn Store, id: RecordId, lease: Duration) -> Holder {
    let mut claim = Claim::new(id, fingerprint(), lease, HOUR);
    claim.origin = Origin::new("desk::pay").with_label(Some("inv\u{1b}[31m\u{9b}\u{61c}-7".into()));
    let owner = claim.owner;
    match store.claim(claim).await {
        Ok(Claimed::Fresh { fence, .. }) => Holder { id, owner, fence },
        other => panic!("{other:?}"),
    }
}
