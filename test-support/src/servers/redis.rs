//! Redis servers: alone, with a replica, behind a Sentinel, and as a cluster.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{end, eventually, free_port, signal};

const HOW_TO_GET: &str = "`redis-server` is missing; run `apt-get install redis-server`";

/// A `redis-server` process that this test started.
pub struct RedisServer {
    child: Child,
    folder: TempDir,
    pub port: u16,
    settings: Vec<String>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts the server with command-line settings, such as `["--maxmemory", "4mb"]`.
    pub fn with(settings: &[&str]) -> Self {
        // Another process may take the port first, so this tries several ports.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let port = free_port();
            let settings: Vec<_> = settings.iter().map(ToString::to_string).collect();
            let child = spawn(&folder, port, &settings);
            let mut server = Self {
                child,
                folder,
                port,
                settings,
            };
            if server.is_up() {
                return server;
            }
        }
        panic!("redis-server did not start on any port");
    }

    fn is_up(&mut self) -> bool {
        eventually("redis", || {
            if self.child.try_wait().expect("a child process").is_some() {
                return Some(false);
            }
            (self.try_command(&["PING"])? == "PONG").then_some(true)
        })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills the server with `kill -9`.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Starts the server again on the same port, with its data on disk.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.folder, self.port, &self.settings);
        assert!(self.is_up(), "redis-server did not restart");
    }

    /// A backup: the file that `SAVE` writes.
    pub fn dump(&self) -> Vec<u8> {
        self.command(&["SAVE"]);
        std::fs::read(self.folder.path().join("dump.rdb")).expect("SAVE has written a file")
    }

    /// Starts the server again with the data of a backup.
    pub fn restore(&mut self, dump: &[u8]) {
        self.kill();
        std::fs::write(self.folder.path().join("dump.rdb"), dump).expect("a writable folder");
        self.start_again();
    }

    pub fn stall(&self) {
        signal(&self.child, "-STOP");
    }

    pub fn go_on(&self) {
        signal(&self.child, "-CONT");
    }

    /// Returns the output of `redis-cli` for a command.
    pub fn command(&self, command: &[&str]) -> String {
        self.try_command(command)
            .expect("Redis executes the command")
    }

    fn try_command(&self, command: &[&str]) -> Option<String> {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(command)
            .stderr(Stdio::null())
            .output()
            .expect(HOW_TO_GET);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Returns a field of `INFO`.
    pub fn info(&self, field: &str) -> Option<String> {
        let all = self.command(&["INFO", "everything"]);
        let line = all.lines().find_map(|line| line.strip_prefix(field));
        Some(line?.strip_prefix(':')?.trim().to_owned())
    }

    /// How many commands clients have sent, without the commands that scripts call.
    pub fn round_trips(&self) -> u64 {
        const IN_SCRIPTS: [&str; 6] = ["getrange", "pttl", "time", "get", "set", "pexpire"];
        const OURS: [&str; 3] = ["info", "ping", "config|get"];
        let stats = self.command(&["INFO", "commandstats"]);
        let calls = |line: &str| {
            let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let (calls, _) = stats.split_once(',')?;
            let counts = !IN_SCRIPTS.contains(&name) && !OURS.contains(&name);
            counts.then(|| calls.parse::<u64>().expect("a number"))
        };
        stats.lines().filter_map(calls).sum()
    }

    /// The folder of the server's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether any file of the server contains a text.
    pub fn has_on_disk(&self, text: &str) -> bool {
        super::is_in(self.folder.path(), text)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn spawn(folder: &TempDir, port: u16, settings: &[String]) -> Child {
    let log = File::create(folder.path().join("log")).expect("a writable folder");
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--dir"])
        .arg(folder.path())
        .args(settings)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect(HOW_TO_GET)
}

/// A `redis-sentinel` process that this test started.
pub struct Sentinel {
    child: Child,
    _folder: TempDir,
    pub port: u16,
}

impl Sentinel {
    /// Starts a Sentinel that watches `primary` under the name `trades` with a quorum of 1.
    pub fn watching(primary: &RedisServer) -> Self {
        Self::with(primary.port, 1, "")
    }

    /// Starts a Sentinel that watches the primary at this port with a quorum of 1, with additional
    /// settings.
    pub fn watching_port(port: u16, settings: &str) -> Self {
        Self::with(port, 1, settings)
    }

    /// Starts three Sentinels that watch `primary` with a quorum of 2, and waits until they know each
    /// other.
    pub fn three_watching(primary: &RedisServer) -> [Self; 3] {
        let sentinels = std::array::from_fn(|_| Self::with(primary.port, 2, ""));
        for sentinel in &sentinels {
            eventually("the other sentinels", || {
                (sentinel.says("num-other-sentinels") == "2").then_some(())
            });
            eventually("the replica", || {
                (sentinel.says("num-slaves") == "1").then_some(())
            });
        }
        sentinels
    }

    fn with(primary: u16, quorum: usize, settings: &str) -> Self {
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let port = free_port();
            let file: PathBuf = folder.path().join("sentinel.conf");
            let settings = format!(
                "port {port}\nbind 127.0.0.1\n{settings}\n\
                 sentinel monitor trades 127.0.0.1 {primary} {quorum}\n\
                 sentinel down-after-milliseconds trades 300\n\
                 sentinel failover-timeout trades 3000\n"
            );
            std::fs::write(&file, settings).expect("a writable folder");
            let mut child = Command::new("redis-server")
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect(HOW_TO_GET);
            let is_up = eventually("the sentinel", || {
                if child.try_wait().expect("a child process").is_some() {
                    return Some(false);
                }
                let output = Command::new("redis-cli")
                    .args(["-p", &port.to_string(), "PING"])
                    .output()
                    .expect(HOW_TO_GET);
                output.stdout.starts_with(b"PONG").then_some(true)
            });
            if is_up {
                return Self {
                    child,
                    _folder: folder,
                    port,
                };
            }
        }
        panic!("redis-sentinel did not start on any port");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn stall(&self) {
        signal(&self.child, "-STOP");
    }

    /// Makes the Sentinel watch another primary, as after a failover that the old primary missed.
    pub fn watch_instead(&self, primary: &RedisServer) {
        let port = primary.port.to_string();
        self.command(&["SENTINEL", "REMOVE", "trades"]);
        self.command(&["SENTINEL", "MONITOR", "trades", "127.0.0.1", &port, "1"]);
    }

    fn command(&self, command: &[&str]) {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(command)
            .output()
            .expect(HOW_TO_GET);
        assert!(output.stdout.starts_with(b"OK"), "{output:?}");
    }

    /// Returns a field of `SENTINEL MASTER` for the watched primary.
    pub fn says(&self, field: &str) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "SENTINEL", "MASTER", "trades"])
            .output()
            .expect(HOW_TO_GET);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().skip_while(|line| *line != field);
        lines.nth(1).unwrap_or_default().to_owned()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Starts a cluster of three primaries.
pub fn cluster() -> Vec<RedisServer> {
    cluster_with_replicas(0)
}

/// Starts a cluster of three primaries with this many replicas each.
pub fn cluster_with_replicas(replicas: usize) -> Vec<RedisServer> {
    let settings = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
        "--repl-diskless-sync-delay",
        "0",
    ];
    let nodes: Vec<_> = (0..3 * (1 + replicas))
        .map(|_| {
            let bus = free_port().to_string();
            let mut settings = settings.to_vec();
            settings.extend(["--cluster-port", &bus]);
            RedisServer::with(&settings)
        })
        .collect();
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]);
    for node in &nodes {
        create.arg(format!("127.0.0.1:{}", node.port));
    }
    let created = create
        .args(["--cluster-yes", "--cluster-replicas", &replicas.to_string()])
        .output()
        .expect(HOW_TO_GET);
    assert!(created.status.success(), "{created:?}");
    let count = format!("cluster_known_nodes:{}", nodes.len());
    for node in &nodes {
        eventually("the cluster", || {
            let info = node.command(&["CLUSTER", "INFO"]);
            (info.contains("cluster_state:ok") && info.contains(&count)).then_some(())
        });
        eventually("replication", || {
            let is_primary = node.info("role")? == "master";
            let is_up = if is_primary {
                // A replica counts for `WAIT` and for a failover only when its primary reports it
                // online. The primary reports this up to a second after the replica does.
                (0..replicas).all(|replica| {
                    let state = node.info(&format!("slave{replica}"));
                    state.is_some_and(|state| state.contains("state=online"))
                })
            } else {
                node.info("master_link_status")? == "up"
            };
            is_up.then_some(())
        });
    }
    // A node lists a replica only when it knows the replica's offset, which may take some seconds.
    for node in &nodes {
        eventually("the replicas in the slots", || {
            let slots = node.command(&["CLUSTER", "SLOTS"]);
            let is_listed = |it: &RedisServer| slots.contains(&it.port.to_string());
            nodes.iter().all(is_listed).then_some(())
        });
    }
    nodes
}

/// Returns the node of a cluster that serves a key.
pub fn serving<'a>(nodes: &'a [RedisServer], key: &str) -> &'a RedisServer {
    let serves = |node: &&RedisServer| !node.command(&["GET", key]).contains("MOVED");
    nodes.iter().find(serves).expect("every slot is served")
}

/// Returns the replicas of a primary.
pub fn replicas_of<'a>(nodes: &'a [RedisServer], primary: &RedisServer) -> Vec<&'a RedisServer> {
    let port = primary.port.to_string();
    let follows = |node: &&RedisServer| node.info("master_port").is_some_and(|it| it == port);
    nodes.iter().filter(follows).collect()
}
