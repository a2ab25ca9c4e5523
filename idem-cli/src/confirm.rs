//! Asks before something is changed.

use std::io::{BufRead, BufReader, IsTerminal, stderr};

use crate::failure::Failure;

/// Asks the operator at the terminal. The standard input may have a scope, a list of records or a body instead. `instead`
/// is the argument that answers the question.
pub(crate) fn confirm(question: &str, instead: &str) -> Result<(), Failure> {
    let terminal = std::fs::File::open("/dev/tty").ok();
    let Some(terminal) = terminal.filter(|_| stderr().is_terminal()) else {
        return Err(Failure::Unconfirmed(format!(
            "nothing was changed, because there is no terminal to ask for confirmation; pass `{instead}`"
        )));
    };
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    let read = BufReader::new(terminal).read_line(&mut line);
    if read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::Unconfirmed("nothing was changed".into()))
}
