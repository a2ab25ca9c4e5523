//! Runs each example that prints `curl` lines, and sends the lines.
//!
//! The comment above a line says what to expect: `: 409.` at its end is the status, and `Run the command twice`
//! or `Run this twice` means that the second response is that of the first. Every other line succeeds, except
//! when its comment tells a story that the tests of the example check.

use std::fs;
use std::path::Path;

use http::{Method, StatusCode};

use crate::examples::payments;
use crate::process::Process;
use crate::support::{Answer, request};

/// What a `curl` line sends.
#[derive(Debug)]
struct Curl {
    method: Method,
    address: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Curl {
    fn parse(line: &str) -> Self {
        let mut words = words(line).into_iter().skip(1);
        let (mut method, mut target) = (None, String::new());
        let (mut headers, mut body) = (Vec::new(), String::new());
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value");
            match word.as_str() {
                "-i" => {}
                "-X" => method = Some(value().parse().expect("a method")),
                "-d" => body = value(),
                "-H" => {
                    let header = value();
                    let (name, value) = header.split_once(": ").expect("a header");
                    headers.push((name.to_owned(), value.to_owned()));
                }
                _ => target = word,
            }
        }
        let (address, path) = target.split_once('/').expect("an address with a path");
        let default = if body.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        Self {
            method: method.unwrap_or(default),
            address: address.to_owned(),
            path: format!("/{path}"),
            headers,
            body,
        }
    }

    async fn send(&self, process: &Process) -> Answer {
        assert_eq!(self.address, process.server.0.to_string());
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
        let request = request(self.method.clone(), &self.path, headers, &self.body);
        process.server.send(request).await
    }
}

/// The words of a line, as a shell splits it. The lines have single quotes only.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// The status that a comment such as `# Without a key: 400.` names.
fn status(comment: &str) -> Option<StatusCode> {
    let (_, status) = comment.strip_suffix('.')?.rsplit_once(": ")?;
    status.parse().ok()
}

/// Lines whose comment does not say the status, because it tells what several commands do.
const REFUSED: [(&str, &str, u16); 2] = [
    // "A different quantity gets 409."
    ("yoshi", "\"quantity\": 99", 409),
    // "Close the economy: a 503 is not recorded."
    ("phantom", "charge-78", 503),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_lines_of_each_example_do_what_their_comments_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut commands = 0;
    for example in [
        "acp", "aleta", "browser", "iex", "phantom", "ucp", "webhooks", "yoshi",
    ] {
        let source = fs::read_to_string(folder.join(example).with_extension("rs"));
        let source = source.expect("the source of the example");
        let is_printed = |line: &&str| line.starts_with("//! curl ") || line.starts_with("//! # ");
        let mut process = Process::start(example, None);
        let printed = process.lines(source.lines().filter(is_printed).count());
        let process = process.ignore_output();

        let mut comment = String::new();
        for line in printed {
            if line.starts_with('#') {
                comment = line;
                continue;
            }
            commands += 1;
            let context = format!("{example}\n{comment}\n{line}");
            let command = Curl::parse(&line);
            let first = command.send(&process).await;
            let refused = REFUSED
                .iter()
                .find(|(name, part, _)| *name == example && line.contains(part))
                .map(|(_, _, status)| *status);
            match refused.or(status(&comment).map(|status| status.as_u16())) {
                Some(expected) => assert_eq!(first.status, expected, "{context}\n{first:?}"),
                None => assert!(first.status.is_success(), "{context}\n{first:?}"),
            }
            let again = command.send(&process).await;
            if comment.contains("twice") {
                assert_eq!(again.status, first.status, "{context}\n{again:?}");
                assert_eq!(again.body, first.body, "{context}\n{again:?}");
            }
        }
    }
    assert!(commands >= 30, "only {commands} commands were printed");
}

/// The example counts the charges itself.
#[test]
fn the_handler_that_dies_after_a_charge_does_not_charge_twice() {
    payments::main();
}
