//! Makes text of a store safe for a terminal.

use std::fmt::Write as _;

/// Escapes characters that control the terminal or the direction of the text. A label or a body could use them
/// to show something else than it is.
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let is_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || is_direction {
            // A string takes everything.
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(safe("größe 1"), "größe 1");
        assert_eq!(
            safe("a\x1b[2Jb\n\u{202e}c\u{9b}"),
            "a\\u{1b}[2Jb\\n\\u{202e}c\\u{9b}"
        );
    }
}
