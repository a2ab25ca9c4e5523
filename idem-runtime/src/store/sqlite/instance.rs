//! Finds out whether the store that made a claim can still settle it.
//!
//! Each open store is an instance with a random number, and writes the number into its claims. It locks a file
//! that has the number in its name, until the store is closed or the process ends. The operating system
//! releases the lock of a dead process. So a process that can lock the file of another instance knows that the
//! instance settles no more claims. A process id would prove less: the system uses the ids again, and each
//! container has ids of its own.
//!
//! A missing file proves nothing, because the database may be a copy. Its claims end with their leases.
//!
//! The modification time of the file extends the leases of the instance. So a lease can be renewed while a
//! handler holds the write lock of the database.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clock::{micros_since_1970, time};

/// The number of an instance without a lock. Its claims end with their leases.
pub(super) const UNLOCKED: i64 = 0;

/// This store, as other stores of the same file see it.
pub(super) struct Instance {
    number: i64,
    /// The path of each instance file, without the number.
    prefix: OsString,
    /// Closing the file releases its lock.
    lock: Option<File>,
}

/// An instance that has ended, and whose claims may still be in flight.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) number: i64,
    path: PathBuf,
    /// While this is locked, nobody else ends the claims of the instance.
    _lock: File,
}

impl Instance {
    /// Locks a new file beside the database, for this table. The database must exist.
    pub(super) fn start(database: &Path, table: &str) -> Self {
        // All paths to one database lead to the same files.
        let database = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
        let mut prefix = database.into_os_string();
        // SQLite ignores the case of names.
        let table = table.trim_matches('"').to_ascii_lowercase();
        prefix.push(format!("-{table}-instance-"));
        match lock_new(&prefix) {
            Ok((number, lock)) => Self {
                number,
                prefix,
                lock: Some(lock),
            },
            Err(error) => {
                tracing::warn!(
                    target: crate::trace::TARGET,
                    error = &error as &dyn std::error::Error,
                    "no file beside the database can be locked; when this process dies, its claims end with \
                     their leases, and not earlier"
                );
                Self {
                    number: UNLOCKED,
                    prefix,
                    lock: None,
                }
            }
        }
    }

    /// The number in the claims of this instance.
    pub(super) fn number(&self) -> i64 {
        self.number
    }

    /// Extends all leases of this instance to this time, without a write to the database. Returns whether
    /// other instances see it.
    ///
    /// The caller reads the clock afterwards. When a lease has not lapsed by then, no other instance has seen
    /// the lease lapse: others read the clock first, and then call [`held_until`](Self::held_until).
    pub(super) fn hold_until(&self, until: i64) -> bool {
        let Some(lock) = &self.lock else {
            return false;
        };
        if self.held_until(self.number) < until && lock.set_modified(time(until)).is_err() {
            return false;
        }
        // Some file systems round the time.
        self.held_until(self.number) >= until
    }

    /// The time to which an instance has extended its leases. Uses the disk.
    pub(super) fn held_until(&self, number: i64) -> i64 {
        if number == UNLOCKED {
            return 0;
        }
        let file = fs::metadata(path_of(&self.prefix, number));
        let modified = file.and_then(|file| file.modified());
        modified.map_or(0, micros_since_1970)
    }

    /// Takes the lock of another instance when that instance has ended. Waits for nobody, but uses the disk.
    pub(super) fn dead(&self, number: i64) -> Option<Dead> {
        if number == UNLOCKED || number == self.number {
            return None;
        }
        let path = path_of(&self.prefix, number);
        let lock = OpenOptions::new().read(true).open(&path).ok()?;
        let is_dead = try_lock(&lock).ok()?;
        is_dead.then_some(Dead {
            number,
            path,
            _lock: lock,
        })
    }

    /// Takes the lock of every instance that has ended. Reads the folder of the database.
    pub(super) fn all_dead(&self) -> Vec<Dead> {
        let path = Path::new(&self.prefix);
        let prefix = path.file_name().unwrap_or_default();
        let number = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_prefix(prefix.to_str()?)?;
            i64::from_str_radix(digits, 16).ok()
        };
        let folder = path.parent().map(fs::read_dir);
        let entries = folder.into_iter().flatten().flatten().flatten();
        let numbers = entries.filter_map(number);
        numbers.filter_map(|number| self.dead(number)).collect()
    }

    /// Ends the instance when its store is closed. An instance with claims in flight ends with its process,
    /// because a handler may still run in a thread of its own.
    pub(super) fn end(self: Arc<Self>, has_claims: bool) {
        if has_claims {
            std::mem::forget(self);
        } else if self.number != UNLOCKED {
            // The next store that opens the database removes what stays.
            let _ = fs::remove_file(path_of(&self.prefix, self.number));
        }
    }
}

impl Dead {
    /// Removes the file. Its claims must have ended, because a missing file proves nothing.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn path_of(prefix: &OsStr, number: i64) -> PathBuf {
    let mut path = prefix.to_owned();
    path.push(format!("{number:016x}"));
    path.into()
}

fn lock_new(prefix: &OsStr) -> io::Result<(i64, File)> {
    loop {
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        // A negative number would have other digits in the name than in the database.
        let number = (random >> 1).cast_signed();
        let path = path_of(prefix, number);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        let locked = is_locked(&file, &path);
        if let Ok(true) = locked {
            return Ok((number, file));
        }
        let _ = fs::remove_file(&path);
        // Another store may have taken the new file for that of a dead instance.
        if matches!(&locked, Err(error) if error.kind() != io::ErrorKind::NotFound) {
            return locked.map(|_| (number, file));
        }
    }
}

/// Locks a file, and returns whether this succeeds and others notice.
fn is_locked(file: &File, path: &Path) -> io::Result<bool> {
    if !try_lock(file)? {
        return Ok(false);
    }
    // Some systems lock for the process and not for the file, and some file systems ignore locks.
    let again = OpenOptions::new().read(true).open(path)?;
    if try_lock(&again)? {
        let why = "the file system does not lock files against their second opener";
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    Ok(true)
}

/// Locks a file, and returns whether this succeeds at once.
#[expect(
    clippy::incompatible_msrv,
    reason = "the feature needs a newer compiler than the package"
)]
fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).expect("it is readable").count()
    }

    #[test]
    fn an_instance_is_dead_when_its_lock_is_free_and_its_file_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("idem.db");
        let one = Instance::start(&database, "\"keys\"");
        let other = Instance::start(&database, "\"Keys\"");
        assert!(one.number() != UNLOCKED && one.number() != other.number());
        assert!(one.dead(one.number()).is_none());
        assert!(one.dead(other.number()).is_none());
        assert!(one.all_dead().is_empty());

        // As when its process is killed.
        let number = other.number();
        drop(other);
        let dead = one.dead(number).expect("its lock is free");
        assert!(one.all_dead().is_empty(), "another caller ends its claims");
        drop(dead);
        let of_another_table = Instance::start(&database, "\"keys2\"");
        assert!(of_another_table.all_dead().is_empty());
        Arc::new(of_another_table).end(false);
        let mut dead = one.all_dead();
        assert_eq!(
            dead.iter().map(|dead| dead.number).collect::<Vec<_>>(),
            [number]
        );
        dead.pop().expect("one instance").remove();
        assert!(one.dead(number).is_none(), "a missing file proves nothing");
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn a_closed_store_removes_its_file_unless_it_has_claims() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("idem.db");
        Arc::new(Instance::start(&database, "\"keys\"")).end(false);
        assert_eq!(files(folder.path()), 0);
        Arc::new(Instance::start(&database, "\"keys\"")).end(true);
        assert_eq!(files(folder.path()), 1);
        let other = Instance::start(&database, "\"keys\"");
        assert!(other.all_dead().is_empty(), "the process still runs");
    }

    /// The folder does not exist, so no file can be created.
    #[test]
    fn an_instance_without_a_lock_is_never_dead() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("missing/idem.db");
        let one = Instance::start(&database, "\"keys\"");
        assert_eq!(one.number(), UNLOCKED);
        assert!(one.dead(UNLOCKED).is_none());
    }
}
