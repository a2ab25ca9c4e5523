//! Shows the progress of long work at a terminal.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// Work that is shorter shows no progress.
const QUIET: Duration = Duration::from_millis(500);

/// One line at the terminal that is written again and again. Shows nothing when the standard error is a file.
pub(crate) struct Progress {
    is_terminal: bool,
    began: Instant,
    shown_at: Option<Instant>,
}

impl Progress {
    pub(crate) fn begin() -> Self {
        Self {
            is_terminal: stderr().is_terminal(),
            began: Instant::now(),
            shown_at: None,
        }
    }

    pub(crate) fn show(&mut self, what: &str) {
        let since = self.shown_at.unwrap_or(self.began);
        if self.is_terminal && since.elapsed() >= QUIET {
            let seconds = self.began.elapsed().as_secs();
            eprint!("\r\x1b[K{what} ({seconds} s)");
            self.shown_at = Some(Instant::now());
        }
    }

    /// Awaits work that takes long, and shows that it goes on.
    pub(crate) async fn during<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(QUIET, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.show(what),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown_at.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
