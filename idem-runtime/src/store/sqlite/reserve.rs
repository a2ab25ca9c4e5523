//! Room on the disk for the responses of admitted claims.
//!
//! A file of random bytes is in the folder of the database. When a settling transition finds the disk full, the file is
//! emptied, and the transition gets its room. Until the file is full again, claims are refused.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::room::RESERVED;

/// The room for 256 responses with what a claim reserves.
const SIZE: u64 = 256 * RESERVED;

/// How long nothing tries to fill the file after a failure. Each try writes as much as the disk takes.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Reserve {
    file: PathBuf,
    failed_at: Option<Instant>,
}

impl Reserve {
    /// The reserve of this database. All processes that share the database share it.
    pub(super) fn of_database(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-reserve");
        Self {
            file: path.into(),
            failed_at: None,
        }
    }

    /// Fills the file unless it is full, and returns whether it is full now. Takes one look at the file when there
    /// is nothing to do. When the disk has no room, the file is empty afterwards.
    pub(super) fn is_filled(&mut self) -> bool {
        if fs::metadata(&self.file).is_ok_and(|file| file.len() >= SIZE) {
            return true;
        }
        if self.failed_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return false;
        }
        let filled = self.write();
        self.failed_at = None;
        if let Err(error) = &filled {
            tracing::warn!(
                target: crate::trace::TARGET,
                error = error as &dyn std::error::Error,
                "the disk has no room for the responses of further claims; claims are refused"
            );
            self.failed_at = Some(Instant::now());
            // The part that was written is of no use here, and the database may need it.
            let _ = self.free();
        }
        filled.is_ok()
    }

    fn write(&self) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.file)?;
        let mut bytes = vec![0; 64 * 1024];
        let mut left = SIZE;
        while let Some(rest) = left.checked_sub(bytes.len() as u64) {
            // Zeros would use no room in a file system with compression.
            getrandom::fill(&mut bytes).map_err(io::Error::other)?;
            file.write_all(&bytes)?;
            left = rest;
        }
        // Some file systems look for room only now.
        file.sync_data()
    }

    /// Empties the file.
    pub(super) fn free(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.file)?;
        file.set_len(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_reserve_is_filled_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut reserve = Reserve::of_database(&folder.path().join("idem.db"));
        let file = folder.path().join("idem.db-reserve");
        let len = || fs::metadata(&file).expect("the file exists").len();
        for _ in 0..2 {
            assert!(reserve.is_filled());
            assert_eq!(len(), 4 * 1024 * 1024);
            reserve.free().expect("the file can be written");
            assert_eq!(len(), 0);
        }
    }
}
