//! Snapshots of the messages of the attribute, their positions, and the item that remains.

mod arguments;
mod handlers;
mod items;
mod scopes;
mod slips;
mod values;

use std::fmt::Write as _;

use expect_test::Expect;

use super::entries::assert_entry;
use super::transform;

const HANDLER: &str = "async fn place(user: User, order: String) -> String { order }";

/// Returns every message of `#[idempotent(arguments)] item`, below the tokens that it points at.
fn messages(arguments: &str, item: &str) -> String {
    let (_, mistakes) = transform(arguments, item);
    let mut text = String::new();
    for error in mistakes {
        let caret = error.span().source_text();
        let caret = caret.unwrap_or_else(|| "#[idempotent]".to_owned());
        let message = error.to_string();
        assert_entry(&message);
        writeln!(text, "{caret}\n    {message}").expect("writing to a string cannot fail");
    }
    text
}

fn check_arguments(all: &[&str], expected: &Expect) {
    let mut text = String::new();
    for arguments in all {
        write!(
            text,
            "#[idempotent({arguments})]\n{}",
            messages(arguments, HANDLER)
        )
        .expect("writing to a string cannot fail");
    }
    expected.assert_eq(&text);
}

fn check_item(item: &str, expected: &Expect) {
    let (left, _) = transform("scope = token", item);
    expected.assert_eq(&format!("{}\n{left}", messages("scope = token", item)));
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let item = "fn place(order: &str, ...) {}";
    let arguments = "ttl = 24, required = 5, tll";
    let (_, mistakes) = transform(arguments, item);
    assert_eq!(mistakes.into_iter().count(), 7);
}
