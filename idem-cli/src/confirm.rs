//! Asks before something is forgotten.

use std::io::{BufRead, BufReader, IsTerminal, stderr};

use crate::failure::Failure;

/// Asks the operator at the terminal. The standard input may have a scope or a list of records instead.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let terminal = std::fs::File::open("/dev/tty").ok();
    let Some(terminal) = terminal.filter(|_| stderr().is_terminal()) else {
        return Err(Failure::Unconfirmed(
            "nothing was forgotten, because there is no terminal to ask for confirmation; pass `--yes`",
        ));
    };
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    let read = BufReader::new(terminal).read_line(&mut line);
    if read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::Unconfirmed("nothing was forgotten"))
}
