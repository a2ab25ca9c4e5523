//! A PostgreSQL server on a socket in a temporary folder, without a TCP port.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{end, eventually, signal};

const HOW_TO_GET: &str = "PostgreSQL is missing; run `apt-get install postgresql`";

/// A `postgres` process that this test started.
pub struct PostgresServer {
    child: Child,
    folder: TempDir,
    settings: Vec<String>,
}

impl PostgresServer {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts the server with lines of its settings file, such as
    /// `["default_transaction_read_only=on"]`.
    pub fn with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        give_away(folder.path());
        let made = program("initdb", folder.path())
            .args(["--no-sync", "--auth=trust", "--username=desk", "--pgdata"])
            .arg(folder.path().join("data"))
            .output()
            .expect(HOW_TO_GET);
        assert!(made.status.success(), "{made:?}");
        Self::in_folder(folder, settings)
    }

    /// Starts a replica that streams from `primary`.
    pub fn replica_of(primary: &Self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        give_away(folder.path());
        let made = program("pg_basebackup", folder.path())
            .args([
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--username=desk",
                "--host",
            ])
            .arg(primary.folder.path())
            .arg("--pgdata")
            .arg(folder.path().join("data"))
            .output()
            .expect(HOW_TO_GET);
        assert!(made.status.success(), "{made:?}");
        Self::in_folder(folder, &[])
    }

    fn in_folder(folder: TempDir, settings: &[&str]) -> Self {
        let settings: Vec<_> = settings.iter().map(ToString::to_string).collect();
        let child = spawn(&folder, &settings);
        let mut server = Self {
            child,
            folder,
            settings,
        };
        server.wait_until_up();
        server
    }

    fn wait_until_up(&mut self) {
        eventually("postgres", || {
            let ended = self.child.try_wait().expect("a child process");
            assert!(ended.is_none(), "postgres ended: {}", self.log());
            self.try_command("SELECT 1").map(drop)
        });
    }

    /// What it has logged since it was created.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How many sessions stores have opened. Needs `log_connections=on`.
    pub fn sessions_of_stores(&self) -> usize {
        let of_a_store = "application_name=axum-idem";
        let log = self.log();
        log.lines().filter(|line| line.contains(of_a_store)).count()
    }

    /// The folder of the server's socket.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// Requires a password from this role from now on.
    pub fn ask_for_password_of(&self, role: &str) {
        let path = self.folder.path().join("data/pg_hba.conf");
        let rules = std::fs::read_to_string(&path).expect("a readable settings file");
        let rules = format!("local all {role} scram-sha-256\n{rules}");
        std::fs::write(&path, rules).expect("a writable settings file");
        self.reload();
    }

    /// Changes a setting of the running server.
    pub fn set(&self, name: &str, value: &str) {
        self.command(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.reload();
    }

    pub fn reset(&self, name: &str) {
        self.command(&format!("ALTER SYSTEM RESET {name}"));
        self.reload();
    }

    /// Returns when every process of the server has been told to read its settings again.
    fn reload(&self) {
        let before = self.command("SELECT clock_timestamp()");
        self.command("SELECT pg_reload_conf()");
        let look = format!("SELECT pg_conf_load_time() >= '{before}'");
        eventually("the new settings", || {
            (self.command(&look) == "t").then_some(())
        });
    }

    pub fn url(&self) -> String {
        let folder = self.folder.path().display();
        format!("postgres:///postgres?user=desk&host={folder}")
    }

    /// Ends the server like a crash: it writes nothing more.
    pub fn kill(&mut self) {
        signal(&self.child, "-QUIT");
        let _ = self.child.wait();
    }

    pub fn start_again(&mut self) {
        self.child = spawn(&self.folder, &self.settings);
        self.wait_until_up();
    }

    /// Returns the output of `psql` for a statement, without headers and alignment.
    pub fn command(&self, statement: &str) -> String {
        self.try_command(statement)
            .expect("PostgreSQL executes the statement")
    }

    fn try_command(&self, statement: &str) -> Option<String> {
        let output = program("psql", self.folder.path())
            .args(["--username=desk", "--dbname=postgres", "--no-psqlrc"])
            .args(["--no-align", "--tuples-only", "--host"])
            .arg(self.folder.path())
            .args(["--command", statement])
            .output()
            .expect(HOW_TO_GET);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// A backup, made by `pg_dump`.
    pub fn dump(&self) -> String {
        let output = program("pg_dump", self.folder.path())
            .args(["--username=desk", "--clean", "--if-exists", "--host"])
            .arg(self.folder.path())
            .arg("postgres")
            .output()
            .expect(HOW_TO_GET);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Restores a backup of [`dump`](Self::dump).
    pub fn restore(&self, dump: &str) {
        let path = self.folder.path().join("dump.sql");
        std::fs::write(&path, dump).expect("a writable folder");
        let output = program("psql", self.folder.path())
            .args(["--username=desk", "--dbname=postgres", "--no-psqlrc"])
            .args(["--quiet", "--set=ON_ERROR_STOP=1", "--host"])
            .arg(self.folder.path())
            .arg("--file")
            .arg(path)
            .output()
            .expect(HOW_TO_GET);
        assert!(output.status.success(), "{output:?}");
    }

    /// Whether any file of the server contains a text.
    pub fn has_on_disk(&self, text: &str) -> bool {
        self.command("CHECKPOINT");
        super::is_in(self.folder.path(), text)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // The processes of the server only end with the main process when it gets this signal.
        let _ = Command::new("kill")
            .args(["-QUIT", &self.child.id().to_string()])
            .stderr(Stdio::null())
            .status();
        let _ = self.child.wait();
        end(&mut self.child);
    }
}

fn spawn(folder: &TempDir, settings: &[String]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.path().join("log"))
        .expect("a writable folder");
    let mut command = program("postgres", folder.path());
    command
        .arg("-D")
        .arg(folder.path().join("data"))
        .arg("-k")
        .arg(folder.path())
        .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
        // In these tests only the process dies, never the machine, so `fsync` is not needed.
        .args(["-c", "fsync=off"]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect(HOW_TO_GET)
}

/// A program of PostgreSQL that runs as the owner of `folder`, because the server refuses to run as
/// root.
pub(super) fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(find(name));
    let owner = folder.metadata().expect("a readable folder");
    let runs_as = Path::new("/proc/self")
        .metadata()
        .expect("a readable `/proc/self`");
    if owner.uid() != runs_as.uid() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.current_dir(folder);
    command
}

/// On Debian, the server's programs are not in the `PATH`.
fn find(name: &str) -> PathBuf {
    let versions = Path::new("/usr/lib/postgresql").read_dir();
    let installed = versions.into_iter().flatten().flatten();
    let mut found: Vec<_> = installed
        .map(|version| version.path().join("bin").join(name))
        .filter(|program| program.exists())
        .collect();
    found.sort();
    // Debian installs `pgbouncer` outside the `PATH` of users.
    let elsewhere = Path::new("/usr/sbin").join(name);
    let elsewhere = elsewhere.exists().then_some(elsewhere);
    found.pop().or(elsewhere).unwrap_or_else(|| name.into())
}

/// Makes `postgres` the owner of a folder when the test runs as root.
pub(super) fn give_away(folder: &Path) {
    if folder.metadata().expect("a readable folder").uid() != 0 {
        return;
    }
    let id = |flag| {
        let output = Command::new("id").args([flag, "postgres"]).output();
        let output = output.expect("`id` runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse().ok()
    };
    let (user, group) = (id("-u"), id("-g"));
    assert!(user.is_some(), "{HOW_TO_GET}");
    chown(folder, user, group).expect("root may change the owner");
}
