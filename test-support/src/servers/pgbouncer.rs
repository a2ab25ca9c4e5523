//! `PgBouncer` in front of a PostgreSQL server, on a socket in a temporary folder.

use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::postgres::{PostgresServer, give_away, program};
use super::{end, eventually};

const HOW_TO_GET: &str = "PgBouncer is missing; run `apt-get install pgbouncer`";

/// A `pgbouncer` process with its default settings for startup parameters.
pub struct PgBouncer {
    child: Child,
    folder: TempDir,
}

impl PgBouncer {
    /// `mode` is `session` or `transaction`.
    pub fn in_front_of(server: &PostgresServer, mode: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().display();
        let settings = format!(
            "[databases]\npostgres = host={server} dbname=postgres\n\
             [pgbouncer]\npool_mode = {mode}\nunix_socket_dir = {path}\nlisten_port = 6432\n\
             auth_type = trust\nauth_file = {path}/users\ndefault_pool_size = 8\n\
             logfile = {path}/log\n",
            server = server.socket_folder().display()
        );
        let write = |name, text: &str| std::fs::write(folder.path().join(name), text);
        write("settings.ini", &settings).expect("a writable folder");
        write("users", "\"desk\" \"\"\n").expect("a writable folder");
        give_away(folder.path());
        let child = program("pgbouncer", folder.path())
            .arg("--quiet")
            .arg(folder.path().join("settings.ini"))
            .stdin(Stdio::null())
            .spawn()
            .expect(HOW_TO_GET);
        let mut bouncer = Self { child, folder };
        let socket = bouncer.folder.path().join(".s.PGSQL.6432");
        eventually("pgbouncer", || {
            let ended = bouncer.child.try_wait().expect("a child process");
            assert!(ended.is_none(), "pgbouncer ended");
            socket.exists().then_some(())
        });
        bouncer
    }

    pub fn url(&self) -> String {
        let folder = self.folder.path().display();
        format!("postgres:///postgres?user=desk&host={folder}&port=6432")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
