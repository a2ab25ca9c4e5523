//! A TCP proxy in front of PostgreSQL that can lose replies.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// Forwards bytes until a test makes it lose replies.
pub struct Wire {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The reply with this number is lost and its connection is closed. 0 loses no reply.
    loses: AtomicUsize,
    /// The connection of the lost reply stays open, and loses its later replies too.
    stays_open: AtomicBool,
    /// The connections up to this number lose every reply and stay open.
    dark_to: AtomicUsize,
    made: AtomicUsize,
    lost: AtomicBool,
    /// Whether new connections wait.
    holds_new: watch::Sender<bool>,
    /// A name in the first message of a client, and the name that replaces it.
    renamed: Mutex<Option<[&'static str; 2]>>,
}

impl Wire {
    pub async fn to(socket_folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let state = Arc::new(State::default());
        let socket = socket_folder.join(".s.PGSQL.5432");
        let serving = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = serving.made.fetch_add(1, Ordering::SeqCst) + 1;
                let (state, socket) = (serving.clone(), socket.clone());
                // This task ends when the client or the server closes.
                tokio::spawn(async move { state.pass(client, socket, number).await });
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        let port = self.port;
        format!("postgres://desk@127.0.0.1:{port}/postgres?sslmode=disable")
    }

    /// Replaces a name in the first message by another name of the same length, as a pooler with its
    /// own name does.
    pub fn rename(&self, from: &'static str, to: &'static str) {
        assert_eq!(from.len(), to.len(), "both names must have the same length");
        *self.state.renamed.lock().expect("no panic") = Some([from, to]);
    }

    /// Loses the reply with this number, counted from 1 from now on, and closes its connection.
    pub fn lose_reply(&self, number: usize) {
        self.state.stays_open.store(false, Ordering::SeqCst);
        self.state.lost.store(false, Ordering::SeqCst);
        self.state.loses.store(number, Ordering::SeqCst);
    }

    /// Loses the reply with this number and all later replies of its connection, and leaves the connection open.
    pub fn hold_reply(&self, number: usize) {
        self.lose_reply(0);
        self.state.stays_open.store(true, Ordering::SeqCst);
        self.state.loses.store(number, Ordering::SeqCst);
    }

    /// Whether a reply was lost since the last call of `lose_reply` or `go_dark`.
    pub fn has_lost(&self) -> bool {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Holds new connections until [`let_new_in`](Self::let_new_in).
    pub fn hold_new(&self) {
        self.state.holds_new.send_replace(true);
    }

    pub fn let_new_in(&self) {
        self.state.holds_new.send_replace(false);
    }

    /// Loses every reply on the existing connections and leaves them open. New connections work.
    pub fn go_dark(&self) {
        self.state.lost.store(false, Ordering::SeqCst);
        let made = self.state.made.load(Ordering::SeqCst);
        self.state.dark_to.store(made, Ordering::SeqCst);
    }
}

impl State {
    async fn pass(&self, client: TcpStream, socket: PathBuf, number: usize) -> io::Result<()> {
        let mut holds_new = self.holds_new.subscribe();
        // The sender lives as long as this state.
        let _ = holds_new.wait_for(|holds| !holds).await;
        let server = UnixStream::connect(socket).await?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let requests = async {
            let mut startup = vec![0; 65_536];
            let length = from_client.read(&mut startup).await?;
            startup.truncate(length);
            if let Some([from, to]) = *self.renamed.lock().expect("no panic") {
                let found = startup
                    .windows(from.len())
                    .position(|it| it == from.as_bytes());
                let at = found.expect("the first message contains the name");
                startup[at..at + to.len()].copy_from_slice(to.as_bytes());
            }
            to_server.write_all(&startup).await?;
            tokio::io::copy(&mut from_client, &mut to_server).await
        };
        let replies = async {
            let mut reply = vec![0; 65_536];
            loop {
                let length = from_server.read(&mut reply).await?;
                let loses = length > 0 && self.loses_now();
                if loses && self.stays_open.load(Ordering::SeqCst) {
                    self.dark_to.fetch_max(number, Ordering::SeqCst);
                } else if length == 0 || loses {
                    return Ok(0);
                }
                if number > self.dark_to.load(Ordering::SeqCst) {
                    to_client.write_all(&reply[..length]).await?;
                } else {
                    self.lost.store(true, Ordering::SeqCst);
                }
            }
        };
        tokio::select! {
            ended = requests => ended.map(drop),
            ended = replies => io::Result::<u64>::map(ended, drop),
        }
    }

    fn loses_now(&self) -> bool {
        let count_down = |number: usize| number.checked_sub(1);
        let before = self
            .loses
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, count_down);
        if before == Ok(1) {
            self.lost.store(true, Ordering::SeqCst);
        }
        before == Ok(1)
    }
}
