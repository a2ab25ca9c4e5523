//! Counts round trips: how often the client sends after the server has sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A proxy in front of a server. It runs as long as the tokio runtime.
pub(crate) struct Proxy {
    round_trips: Arc<AtomicU64>,
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

impl Proxy {
    pub(crate) async fn before_redis(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("a bound address").port();
        let round_trips = Arc::<AtomicU64>::default();
        let counter = round_trips.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await;
                let server = server.expect("the server listens");
                tokio::spawn(pass(client, server, counter.clone()));
            }
        });
        Self {
            round_trips,
            url: format!("redis://127.0.0.1:{own}/"),
            _folder: None,
        }
    }

    /// `url` is the URL of the server. The folder after `host=` contains the server's socket.
    pub(crate) fn before_postgres(url: &str) -> Self {
        const SOCKET: &str = ".s.PGSQL.5432";
        let (rest, host) = url.split_once("host=").expect("a folder");
        let behind: PathBuf = Path::new(host).join(SOCKET);
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
        let round_trips = Arc::<AtomicU64>::default();
        let counter = round_trips.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&behind).await;
                let server = server.expect("the server listens");
                tokio::spawn(pass(client, server, counter.clone()));
            }
        });
        Self {
            round_trips,
            url: format!("{rest}host={}", folder.path().display()),
            _folder: Some(folder),
        }
    }

    pub(crate) fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    round_trips: Arc<AtomicU64>,
) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_the_clients_turn = true;
    loop {
        tokio::select! {
            length = client.read(&mut asked) => {
                let Ok(length @ 1..) = length else { return };
                if is_the_clients_turn {
                    round_trips.fetch_add(1, Ordering::Relaxed);
                }
                is_the_clients_turn = false;
                if server.write_all(&asked[..length]).await.is_err() {
                    return;
                }
            }
            length = server.read(&mut answered) => {
                let Ok(length @ 1..) = length else { return };
                is_the_clients_turn = true;
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
