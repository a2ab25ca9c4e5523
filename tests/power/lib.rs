//! A disk that loses power, below SQLite.
//!
//! [`Disk::new`] puts a file system between SQLite and the operating system. It records every write, every
//! sync and every removal in a folder. [`Disk::after_loss`] computes the files that a machine could find after it lost power at any of
//! these events.
//!
//! The model: a sync of a file keeps all earlier writes to this file, and its name. Of the writes
//! since the last sync, any sectors of 512 bytes may be kept, in any order. Other sectors are never changed.

mod loss;
mod vfs;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use loss::{Files, Kept};

/// One change of the disk.
#[derive(Clone, Debug)]
enum Event {
    Write {
        file: String,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        size: usize,
    },
    Sync {
        file: String,
    },
    Remove {
        file: String,
    },
}

/// The recorded events of the files in one folder.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    events: Mutex<Vec<Event>>,
    fault: Mutex<Option<Fault>>,
}

/// A call of the disk that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room for any write.
    Full,
    /// No sync succeeds, after writes that do.
    Sync,
}

impl Disk {
    /// Records what SQLite does in this folder from now on. The folder must be empty.
    ///
    /// # Panics
    ///
    /// When the folder does not exist, or when SQLite refuses the file system.
    #[must_use]
    pub fn new(folder: &Path) -> Arc<Self> {
        let disk = Arc::new(Self {
            // SQLite resolves links before it opens a file.
            folder: folder.canonicalize().expect("the folder exists"),
            events: Mutex::default(),
            fault: Mutex::default(),
        });
        vfs::record(disk.clone());
        disk
    }

    /// How many events there are. A number is a moment at which the power can go: after so many events.
    #[must_use]
    pub fn now(&self) -> usize {
        self.lock().len()
    }

    /// The files after the power went at this moment.
    #[must_use]
    pub fn after_loss(&self, moment: usize, kept: Kept) -> Files {
        loss::files(&self.lock()[..moment], kept)
    }

    /// Lets calls fail from now on, or none.
    pub fn fail(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn fails(&self, fault: Fault) -> bool {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) == Some(fault)
    }

    fn add(&self, event: Event) {
        self.lock().push(event);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
