//! An example in a process of its own, as `cargo run --example` starts it.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::examples::{acp, aleta, browser, iex, phantom, trades, ucp, webhooks, yoshi};
use crate::support::Server;

const EXAMPLE: &str = "AXUM_IDEM_TEST_EXAMPLE";

/// Not a test. [`Process`] starts this function as a process that it can kill.
#[test]
fn example_in_a_process() {
    let Ok(example) = std::env::var(EXAMPLE) else {
        return;
    };
    let ended = match example.as_str() {
        "acp" => acp::main(),
        "aleta" => aleta::main(),
        "browser" => browser::main(),
        "iex" => iex::main(),
        "phantom" => phantom::main(),
        "trades" => trades::main(),
        "ucp" => ucp::main(),
        "webhooks" => webhooks::main(),
        "yoshi" => yoshi::main(),
        other => panic!("no example {other}"),
    };
    ended.expect("it serves until it is killed");
}

/// The process of an example. Ends with the test.
pub(crate) struct Process {
    child: Child,
    pub(crate) server: Server,
    output: Option<Lines<BufReader<ChildStdout>>>,
}

impl Process {
    /// Starts an example with its records in memory, or in a file.
    pub(crate) fn start(example: &str, file: Option<&Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
        command
            .args(["process::example_in_a_process", "--exact", "--nocapture"])
            .env(EXAMPLE, example)
            .env_remove("STORE")
            .env("PORT", "0")
            .env("PAGE_PORT", "0")
            .env("ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::piped());
        if let Some(file) = file {
            command.env("STORE", format!("sqlite://{}", file.display()));
        }
        let mut child = command.spawn().expect("the process starts");
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let lines = output.by_ref().map_while(Result::ok);
        let address = { lines }.find_map(|line| {
            let (before, address) = line.split_once(" on http://")?;
            before.contains("listen").then(|| address.parse().ok())?
        });
        Self {
            server: Server(address.expect("the example serves")),
            child,
            output: Some(output),
        }
    }

    /// Returns what the example prints after its address, up to this many lines.
    pub(crate) fn lines(&mut self, count: usize) -> Vec<String> {
        let output = self.output.iter_mut().flatten().map_while(Result::ok);
        let printed = output.filter(|line| !line.is_empty());
        printed.take(count).collect()
    }

    /// Reads on, so that the process never writes to a closed pipe.
    pub(crate) fn ignore_output(mut self) -> Self {
        let output = self.output.take();
        std::thread::spawn(move || output.into_iter().flatten().for_each(drop));
        self
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may already have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
