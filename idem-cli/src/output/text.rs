//! Makes text of a store safe for a terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

/// Whether a character controls the terminal or the direction of the text (`Bidi_Control` of Unicode). A label or a body
/// could use it to show something else than it is.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes characters that control the terminal or the direction of the text.
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            // A string takes everything.
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A message that may have several lines.
pub(crate) fn safe_lines(message: &str) -> String {
    let lines: Vec<String> = message.lines().map(safe).collect();
    lines.join("\n")
}

/// A value in one line of JSON. JSON itself allows DEL, C1 controls and controls of the direction in a string, so they are
/// escaped here. All of them have four hexadecimal digits at most.
pub(crate) fn json_line(value: &Value) -> String {
    let plain = value.to_string();
    let mut safe = String::with_capacity(plain.len());
    for c in plain.chars() {
        if is_unsafe(c) {
            // A string takes everything.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

pub(crate) fn print_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{}", json_line(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(safe("größe 1"), "größe 1");
        assert_eq!(
            safe("a\x1b[2Jb\n\u{202e}c\u{9b}\u{61c}"),
            "a\\u{1b}[2Jb\\n\\u{202e}c\\u{9b}\\u{61c}"
        );
        assert_eq!(safe_lines("a\u{9b}\nb"), "a\\u{9b}\nb");
    }

    #[test]
    fn json_has_no_control_characters_and_the_same_value() {
        let value = json!({ "a\u{9b}": "ß\x1b\x7f\u{85}\u{61c}\u{202e}\n" });
        let line = json_line(&value);
        assert_eq!(line, r#"{"a\u009b":"ß\u001b\u007f\u0085\u061c\u202e\n"}"#);
        let read: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read, value);
    }
}
