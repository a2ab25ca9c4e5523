//! What a service leaves behind: the bytes on its way to a server, and its log.

use std::fmt::{Debug, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Where a proxy connects to.
#[derive(Clone)]
pub(crate) enum Upstream {
    Port(u16),
    Socket(PathBuf),
}

/// A TCP proxy that notes every byte in both directions.
pub(crate) struct Tap {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    pub(crate) async fn to(upstream: Upstream) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let seen = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let noted = seen.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, seen) = (upstream.clone(), noted.clone());
                tokio::spawn(async move {
                    // The other side handles a broken connection.
                    let _ = match upstream {
                        Upstream::Port(port) => {
                            let server = TcpStream::connect(("127.0.0.1", port)).await;
                            pass(client, server.expect("the server listens"), &seen).await
                        }
                        Upstream::Socket(path) => {
                            let server = UnixStream::connect(path).await;
                            pass(client, server.expect("the server listens"), &seen).await
                        }
                    };
                });
            }
        });
        Self { port, seen }
    }

    /// All bytes so far, one direction of one connection after the other.
    pub(crate) fn seen(&self) -> Vec<u8> {
        self.seen.lock().expect("no panic").concat()
    }
}

async fn pass(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    seen: &Mutex<Vec<Vec<u8>>>,
) -> std::io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    tokio::try_join!(
        copy(from_client, to_server, seen),
        copy(from_server, to_client, seen)
    )?;
    Ok(())
}

/// Copies one direction, and notes the bytes in one piece, so that no text is torn apart.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seen: &Mutex<Vec<Vec<u8>>>,
) -> std::io::Result<()> {
    let number = {
        let mut seen = seen.lock().expect("no panic");
        seen.push(Vec::new());
        seen.len() - 1
    };
    let mut buffer = vec![0; 65_536];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        seen.lock().expect("no panic")[number].extend_from_slice(&buffer[..length]);
        to.write_all(&buffer[..length]).await?;
    }
}

/// The log of this process at all levels and of all crates.
static LOG: Mutex<String> = Mutex::new(String::new());

/// Notes every event, and every field of every span.
struct Notes;

impl Visit for Notes {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut log = log();
        writeln!(log, "{}={value:?}", field.name()).expect("a string takes everything");
    }
}

impl<S: Subscriber> Layer<S> for Notes {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        attributes.record(&mut Self);
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
        values.record(&mut Self);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Self);
    }
}

fn log() -> MutexGuard<'static, String> {
    // A value that logs while it is written would wait for itself. None does.
    LOG.lock().expect("no panic")
}

/// Starts the log on the first call, and empties it.
pub(crate) fn begin_log() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let notes = tracing_subscriber::registry().with(Notes);
        tracing::subscriber::set_global_default(notes).expect("no other global subscriber");
    });
    log().clear();
}

pub(crate) fn logged() -> Vec<u8> {
    log().clone().into_bytes()
}
