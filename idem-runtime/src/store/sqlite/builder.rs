//! Settings of the store: the file, the table and the durability.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};

use super::clock::ReadClock;
use super::instance::Instance;
use super::readers::{READERS, Readers};
use super::table::Statements;
use super::writer::{Settings, WAITS, Writer};
use super::{Inner, SqliteStore, setup};
use crate::store::StoreError;
use crate::store::batch::{Batcher, PATIENCE};
use crate::store::observer::StoreObserver;

/// One day. Adding durations of many years to an instant would overflow.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many rows callers read together, at most.
const LONGEST_LOOK: usize = 64;

/// Settings of a [`SqliteStore`].
#[derive(Clone)]
#[must_use]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "sqlite")]
pub struct SqliteStoreBuilder {
    file: File,
    table: String,
    migrate: bool,
    synchronous: SqliteSynchronous,
    busy_timeout: Duration,
    sweep_every: Option<Duration>,
    max_bytes: Option<u64>,
}

#[derive(Clone)]
enum File {
    Path(PathBuf),
    OfPool(SqlitePool),
}

impl SqliteStoreBuilder {
    pub(super) fn new() -> Self {
        Self {
            file: File::Path("idem.db".into()),
            table: "idem_records".to_owned(),
            migrate: true,
            synchronous: SqliteSynchronous::Full,
            busy_timeout: Duration::from_secs(2),
            sweep_every: Some(Duration::from_secs(60)),
            max_bytes: None,
        }
    }

    /// Sets the path of the file; `idem.db` in the working directory by default. The store creates a missing file, but its
    /// folder must exist. The file must be on a local disk.
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.file = File::Path(path.as_ref().to_owned());
        self
    }

    /// Uses the file of the service's pool, with the pool's connect options at that time.
    ///
    /// The store takes no connection out of the pool. It opens up to five connections of its own, so a pool of one
    /// connection is enough. The store changes the journal mode of the file to WAL, for every connection. An
    /// in-memory database is refused.
    pub fn pool(mut self, pool: SqlitePool) -> Self {
        self.file = File::OfPool(pool);
        self
    }

    /// Sets the name of the table; `idem_records` by default. At most 50 letters, digits and underscores.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// Sets whether [`open`](Self::open) creates a missing file and missing tables, and changes the journal mode of the file
    /// to WAL; `true` by default. With `false`, `open` changes nothing, and its error says what is missing. Create the tables
    /// with [`schema_sql`](Self::schema_sql), and set the mode with `PRAGMA journal_mode = WAL`.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Sets how the store waits for the disk; [`Full`](SqliteSynchronous::Full) by default.
    ///
    /// With [`Normal`](SqliteSynchronous::Normal), a loss of power can undo transitions that were acknowledged: a retry
    /// then runs the handler again. A killed process undoes nothing. With
    /// [`Off`](SqliteSynchronous::Off), a loss of power can damage the file, so [`open`](Self::open) refuses it.
    pub fn synchronous(mut self, synchronous: SqliteSynchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets how long a transition waits for the write lock while another connection holds it; 2 seconds by default. Then it
    /// gets [`StoreError::Busy`]. The wait can be longer by an eighth.
    ///
    /// The first try of a claim has half of [`store_timeout`](crate::IdempotencyBuilder::store_timeout), which is 2.5
    /// seconds by default. Keep the wait shorter. The request then gets 503 at once, and the log has `StoreError::Busy`.
    /// With a longer wait, the claim is tried again in vain, and the log has `StoreError::TimedOut`.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// Sets how often the sweeper removes expired rows; every 60 seconds by default.
    pub fn sweep_every(mut self, pause: Duration) -> Self {
        self.sweep_every = Some(pause);
        self
    }

    /// Turns the sweeper off. Call [`SqliteStore::sweep`] to remove expired rows.
    pub fn no_sweeper(mut self) -> Self {
        self.sweep_every = None;
        self
    }

    /// Limits the bytes of data in the file; without a limit by default. Beyond the limit, a claim gets
    /// [`Claimed::Full`](crate::store::Claimed::Full), and its handler does not run.
    ///
    /// Each claim in flight reserves 16 KiB for its response. A response is always stored, so larger
    /// responses can exceed the limit. All tables of the file count. The log beside the file does not
    /// count.
    ///
    /// While the table has more than about 1,000 claims and unknown outcomes, the store counts the claims of other processes
    /// only from time to time. So several processes can exceed the limit by the claims that they make meanwhile.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// Returns the SQL that creates the tables and the indexes, for a reader or a migration tool. It is safe to run again.
    ///
    /// The package contains the SQL with the default name as `schema/sqlite.sql`.
    ///
    /// ```
    /// use idem_runtime::store::SqliteStore;
    ///
    /// let sql = SqliteStore::builder().table("keys").schema_sql()?;
    /// assert!(sql.contains(r#"CREATE TABLE IF NOT EXISTS "keys" ("#));
    /// # Ok::<(), idem_runtime::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] for an invalid name.
    pub fn schema_sql(&self) -> Result<String, StoreError> {
        Ok(Statements::new(&self.table)?.definition())
    }

    /// Opens the file, and creates the file and the tables when they are missing, unless [`migrate`](Self::migrate) is
    /// `false`. Any number of processes may do so at once. Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] for a directory, a missing folder, a file that is no SQLite database or cannot be written,
    /// tables of another version, missing tables with `migrate(false)`, a table that is not of this store, an in-memory database,
    /// `synchronous = OFF`, an invalid name, and an SQLite older than 3.51.3. The message says what to do.
    /// [`StoreError::Busy`] when another connection locks the file for longer than
    /// [`busy_timeout`](Self::busy_timeout).
    pub async fn open(self) -> Result<SqliteStore, StoreError> {
        if matches!(self.synchronous, SqliteSynchronous::Off) {
            let why = "`synchronous = OFF` can damage the file when the power goes; use `Full`";
            return Err(StoreError::Unfit(why.into()));
        }
        let statements = Arc::new(Statements::new(&self.table)?);
        let options = self.options();
        let path = options.get_filename().to_owned();
        let of_writer = options.clone().busy_timeout(self.busy_timeout / WAITS);
        let mut connection =
            setup::open(&of_writer, &statements, self.migrate, self.busy_timeout).await?;
        let file = setup::file(&mut connection).await?.into();
        // The database exists now.
        let instance = Arc::new(Instance::start(&path, &statements.table));
        let clock = Arc::new(ReadClock::default());
        let observer = Arc::new(StoreObserver::default());
        let readers = Readers::new(options, clock.clone(), observer.clone());
        let settings = Settings {
            observer: observer.clone(),
            options: of_writer,
            statements: statements.clone(),
            clock,
            instance: instance.clone(),
            busy_timeout: self.busy_timeout,
            sweep_every: self.sweep_every,
            max_bytes: self.max_bytes,
        };
        let store = Inner {
            path,
            file,
            synchronous: match self.synchronous {
                SqliteSynchronous::Off => 0,
                SqliteSynchronous::Normal => 1,
                SqliteSynchronous::Full => 2,
                SqliteSynchronous::Extra => 3,
            },
            writer: Writer::start(connection, settings)?,
            readers,
            looks: Batcher::new(READERS, LONGEST_LOOK, PATIENCE),
            statements,
            instance,
            max_bytes: self.max_bytes,
            observer,
        };
        store.end_claims_of_all_dead().await;
        Ok(SqliteStore(Arc::new(store)))
    }

    /// How every connection of the store is opened.
    pub(super) fn options(&self) -> SqliteConnectOptions {
        let options = match &self.file {
            File::Path(path) => SqliteConnectOptions::new().filename(path),
            File::OfPool(pool) => (*pool.connect_options()).clone(),
        };
        let options = if self.migrate {
            options.journal_mode(SqliteJournalMode::Wal)
        } else {
            options
        };
        options
            .create_if_missing(false)
            .locking_mode(SqliteLockingMode::Normal)
            .synchronous(self.synchronous)
            // Only macOS has this: a sync that reaches the disk.
            .pragma("fullfsync", "ON")
            .busy_timeout(self.busy_timeout)
    }
}

impl fmt::Debug for SqliteStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStoreBuilder")
            .field("path", &self.options().get_filename())
            .field("table", &self.table)
            .field("migrate", &self.migrate)
            .field("busy_timeout", &self.busy_timeout)
            .field("sweep_every", &self.sweep_every)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
