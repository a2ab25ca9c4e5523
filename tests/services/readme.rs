//! The first example of the README.

use std::fs;
use std::path::Path;

use http::Method;

use crate::examples::quickstart;
use crate::support::{Server, request};

/// The text of the first code block in this language.
fn block(language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).expect("a README");
    let (_, rest) = readme
        .split_once(&format!("```{language}\n"))
        .expect("a code block");
    let (block, _) = rest.split_once("```").expect("the end of the block");
    block.to_owned()
}

#[test]
fn the_readme_contains_the_example() {
    let source = include_str!("../../examples/quickstart.rs");
    let code = source.find("\nuse ").expect("code");
    // This test needs access to the router, and a reader's `main.rs` does not.
    let code = source[code + 1..].replace("pub(crate) ", "");
    assert_eq!(block("rust,no_run"), code);
}

/// Sends each `curl` line and looks for each of the lines that follow it in the response.
#[tokio::test]
async fn the_curl_lines_of_the_readme_print_the_lines_below_them() {
    let server = Server::start(quickstart::router()).await;
    let console = block("console");
    let commands: Vec<_> = console.split("$ curl ").skip(1).collect();
    assert_eq!(commands.len(), 3);
    for command in commands {
        let (command, output) = command.split_once('\n').expect("output");
        let (path, arguments) = command
            .strip_prefix("-i localhost:3000")
            .and_then(|rest| rest.split_once(' '))
            .expect("a path");
        let mut headers = vec![("content-type", "application/json")];
        let mut body = "";
        for argument in arguments.split("' ") {
            let (option, value) = argument.split_once(" '").expect("an option");
            let value = value.trim_end_matches('\'');
            match option {
                "-H" => headers.push(value.split_once(": ").expect("a header")),
                "--json" => body = value,
                _ => panic!("unknown option {option}"),
            }
        }

        let response = server
            .send(request(Method::POST, path, headers, body))
            .await;
        for line in output.lines() {
            let is_there = if let Some(status) = line.strip_prefix("HTTP/1.1 ") {
                response.status.to_string() == status
            } else if let Some((name, value)) = line.split_once(": ")
                && let Some(found) = response.headers.get(name)
            {
                found == value
            } else {
                response.text() == format!("{line}\n")
            };
            assert!(is_there, "{line} is not in {response:?}");
        }
    }
}
