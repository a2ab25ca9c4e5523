//! Connections that are used one statement after another.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Connection, Error, PgConnection, PgPool, Postgres};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A connection that has stood idle for longer is tried out before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);

/// Where the store's connections come from.
pub(super) enum Connections {
    /// The service's pool, which is given back at once what it lends. sqlx then asks the connection
    /// whether it lives: a second round trip, behind each statement.
    Shared(PgPool),
    /// What has served one statement is kept for the next without a question.
    Own(Own),
}

pub(super) struct Own {
    /// Makes the connections, and keeps none.
    pool: PgPool,
    idle: Mutex<Vec<Idle>>,
    room: Semaphore,
}

struct Idle {
    connection: PgConnection,
    made: Instant,
    since: Instant,
}

/// A connection for one statement. An own one that is dropped, as when a statement is cut off, is
/// closed: the next would find the answer to the last.
pub(super) enum Lent<'c> {
    Shared(PoolConnection<Postgres>),
    Own {
        connection: PgConnection,
        made: Instant,
        home: &'c Own,
        _room: SemaphorePermit<'c>,
    },
}

impl Connections {
    /// Takes a pool that nobody else uses.
    pub(super) fn own(pool: PgPool) -> Self {
        let number = pool.options().get_max_connections();
        Self::Own(Own {
            pool,
            idle: Mutex::default(),
            room: Semaphore::new(usize::try_from(number).unwrap_or(Semaphore::MAX_PERMITS)),
        })
    }

    /// What makes the connections.
    pub(super) fn pool(&self) -> &PgPool {
        match self {
            Self::Shared(pool) | Self::Own(Own { pool, .. }) => pool,
        }
    }

    /// # Errors
    ///
    /// When no connection can be made.
    pub(super) async fn acquire(&self) -> Result<Lent<'_>, Error> {
        match self {
            Self::Shared(pool) => pool.acquire().await.map(Lent::Shared),
            Self::Own(own) => own.acquire().await,
        }
    }
}

impl Own {
    async fn acquire(&self) -> Result<Lent<'_>, Error> {
        let room = self.room.acquire().await.map_err(|_| Error::PoolClosed)?;
        let lend = |connection, made| Lent::Own {
            connection,
            made,
            home: self,
            _room: room,
        };
        while let Some(mut kept) = self.take() {
            if kept.since.elapsed() < TRUSTED_IDLE || kept.connection.ping().await.is_ok() {
                return Ok(lend(kept.connection, kept.made));
            }
        }
        let made = self.pool.acquire().await?.detach();
        Ok(lend(made, Instant::now()))
    }

    fn take(&self) -> Option<Idle> {
        self.idle().pop()
    }

    /// Keeps a connection, unless it has had its time.
    fn keep(&self, connection: PgConnection, made: Instant) {
        let now = Instant::now();
        let is_over = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.duration_since(since) > limit)
        };
        let options = self.pool.options();
        let mut idle = self.idle();
        idle.retain(|kept| !is_over(kept.since, options.get_idle_timeout()));
        if !is_over(made, options.get_max_lifetime()) {
            idle.push(Idle {
                connection,
                made,
                since: now,
            });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent<'_> {
    /// To be used again.
    pub(super) fn give_back(self) {
        match self {
            Self::Shared(connection) => drop(connection),
            // Who waits for the room finds the connection.
            Self::Own {
                connection,
                made,
                home,
                _room,
            } => home.keep(connection, made),
        }
    }

    /// Not to be used again. Nor are those that stand idle: what has ended this one, such as a restart
    /// or a failover, has ended them as well, and each would cost a try.
    pub(super) fn close(self) {
        match self {
            Self::Shared(mut connection) => connection.close_on_drop(),
            Self::Own { home, .. } => home.idle().clear(),
        }
    }
}

impl Deref for Lent<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Shared(connection) => connection,
            Self::Own { connection, .. } => connection,
        }
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Shared(connection) => connection,
            Self::Own { connection, .. } => connection,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use sqlx::postgres::PgPoolOptions;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const READY: &[u8] = b"Z\0\0\0\x05I";

    /// Speaks as much of PostgreSQL as it takes to connect and to be tried out.
    #[derive(Default)]
    struct Server {
        made: AtomicUsize,
        tried: AtomicUsize,
        hangs_up: AtomicBool,
    }

    impl Server {
        async fn start() -> (Arc<Self>, Own) {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let server = Arc::new(Self::default());
            let serving = server.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let serving = serving.clone();
                    // It ends when its client goes.
                    tokio::spawn(async move { serving.serve(stream).await });
                }
            });
            let url = format!("postgres://desk@127.0.0.1:{port}/?sslmode=disable");
            let options = PgPoolOptions::new()
                .idle_timeout(Duration::from_secs(10))
                .max_lifetime(Duration::from_secs(20));
            let pool = options.connect_lazy(&url).expect("a URL");
            let Connections::Own(own) = Connections::own(pool) else {
                unreachable!("it is its own");
            };
            (server, own)
        }

        async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
            let length = stream.read_u32().await?;
            skip(&mut stream, length).await?;
            self.made.fetch_add(1, Ordering::SeqCst);
            stream.write_all(&[WELCOME, READY].concat()).await?;
            loop {
                let kind = stream.read_u8().await?;
                let length = stream.read_u32().await?;
                skip(&mut stream, length).await?;
                if kind == b'S' {
                    self.tried.fetch_add(1, Ordering::SeqCst);
                    if self.hangs_up.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                    stream.write_all(READY).await?;
                }
            }
        }

        /// How many connections were made, and how often one was tried out.
        fn counts(&self) -> (usize, usize) {
            let [made, tried] = [&self.made, &self.tried].map(|it| it.load(Ordering::SeqCst));
            (made, tried)
        }
    }

    /// Reads what is left of a message whose length, which counts itself, is read.
    async fn skip(stream: &mut TcpStream, length: u32) -> io::Result<()> {
        let mut rest = stream.take(u64::from(length).saturating_sub(4));
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        Ok(())
    }

    async fn lend(own: &Own) -> Lent<'_> {
        own.acquire().await.expect("the server is there")
    }

    fn before(time: Instant, seconds: u64) -> Instant {
        let earlier = time.checked_sub(Duration::from_secs(seconds));
        earlier.expect("the machine has been up for longer")
    }

    fn let_stand(own: &Own, seconds: u64) {
        for kept in own.idle().iter_mut() {
            kept.since = before(kept.since, seconds);
        }
    }

    #[tokio::test]
    async fn what_has_served_serves_the_next_without_a_question() {
        let (server, own) = Server::start().await;
        for _ in 0..3 {
            lend(&own).await.give_back();
        }
        assert_eq!(server.counts(), (1, 0));
        drop(lend(&own).await);
        lend(&own).await.give_back();
        assert_eq!(server.counts(), (2, 0));
    }

    #[tokio::test]
    async fn what_led_nowhere_takes_with_it_what_stands_idle() {
        let (server, own) = Server::start().await;
        let (first, second) = (lend(&own).await, lend(&own).await);
        first.give_back();
        second.close();
        lend(&own).await.give_back();
        assert_eq!(server.counts(), (3, 0));
    }

    #[tokio::test]
    async fn what_stood_idle_is_tried_out_before_it_serves() {
        let (server, own) = Server::start().await;
        lend(&own).await.give_back();
        let_stand(&own, 6);
        lend(&own).await.give_back();
        assert_eq!(server.counts(), (1, 1));
        server.hangs_up.store(true, Ordering::SeqCst);
        let_stand(&own, 6);
        lend(&own).await.give_back();
        assert_eq!(server.counts(), (2, 2));
    }

    #[tokio::test]
    async fn what_has_had_its_time_is_not_kept() {
        let (_server, own) = Server::start().await;
        let (first, second) = (lend(&own).await, lend(&own).await);
        first.give_back();
        let_stand(&own, 11);
        second.give_back();
        assert_eq!(own.idle().len(), 1, "one has stood for too long");

        let mut old = lend(&own).await;
        if let Lent::Own { made, .. } = &mut old {
            *made = before(*made, 21);
        }
        old.give_back();
        assert_eq!(own.idle().len(), 0, "one has lived for too long");
    }
}
