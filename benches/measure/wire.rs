//! A client that costs little: fixed bytes out, and no more of the answer read than its length.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::contenders::Key;

/// The request of 200 bytes, with a key that changes.
#[derive(Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    key_at: usize,
    key: Key,
}

impl Request {
    pub(crate) fn new(key: Key, body: &str) -> Self {
        let mut head = String::from(
            "POST /trades HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\
             content-type: application/json\r\n",
        );
        if key(0).is_some() {
            head += "idempotency-key: 8e03978e-40d5-43e8-bc93-";
        }
        let key_at = head.len();
        if key(0).is_some() {
            head += "000000000000\r\n";
        }
        let bytes = format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes();
        Self { bytes, key_at, key }
    }

    /// The `n`th request.
    pub(crate) fn nth(&mut self, n: u64) -> &[u8] {
        if let Some(key) = (self.key)(n) {
            let place = &mut self.bytes[self.key_at..self.key_at + 12];
            write!(&mut &mut *place, "{key:012x}").expect("it has room");
        }
        &self.bytes
    }
}

/// Finds the end of an answer, quickly where it is as long as the one before.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    head: usize,
    whole: usize,
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

impl Answer {
    /// Takes what has arrived; whether that was the last of the answer.
    ///
    /// # Panics
    ///
    /// When the answer is another than 201, or more than one arrived.
    fn take(&mut self, arrived: &[u8]) -> bool {
        self.bytes.extend_from_slice(arrived);
        let is_as_before = self.head > 0
            && self.bytes.len() >= self.head
            && self.bytes[..self.head].ends_with(END_OF_HEAD);
        if !is_as_before {
            let Some(head) = position(&self.bytes, END_OF_HEAD) else {
                return false;
            };
            self.head = head + END_OF_HEAD.len();
            let length = position(&self.bytes, b"content-length: ").expect("a length") + 16;
            let digits = self.bytes[length..]
                .iter()
                .take_while(|it| it.is_ascii_digit());
            let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
            self.whole = self.head + length;
        }
        if self.bytes.len() < self.whole {
            return false;
        }
        let text = || String::from_utf8_lossy(&self.bytes);
        assert!(self.bytes.starts_with(b"HTTP/1.1 201"), "{}", text());
        assert_eq!(self.bytes.len(), self.whole, "{}", text());
        self.bytes.clear();
        true
    }
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_nonblocking(true).expect("a socket");
    stream
}

/// A connection that is waited on.
pub(crate) struct Awaited {
    stream: tokio::net::TcpStream,
    request: Request,
    answer: Answer,
}

impl Awaited {
    pub(crate) fn new(port: u16, request: Request) -> Self {
        Self {
            stream: tokio::net::TcpStream::from_std(connect(port)).expect("a socket"),
            request,
            answer: Answer::default(),
        }
    }

    /// Sends the `n`th request and reads its answer.
    pub(crate) async fn ask(&mut self, n: u64) {
        let sent = self.stream.write_all(self.request.nth(n)).await;
        sent.expect("the server reads");
        let mut buffer = [0; 4096];
        loop {
            let length = self.stream.read(&mut buffer).await.expect("an answer");
            assert!(length > 0, "the server hung up");
            if self.answer.take(&buffer[..length]) {
                return;
            }
        }
    }
}

/// A connection that is looked at.
pub(crate) struct Polled {
    stream: TcpStream,
    request: Request,
    answer: Answer,
}

impl Polled {
    pub(crate) fn new(port: u16, request: Request) -> Self {
        Self {
            stream: connect(port),
            request,
            answer: Answer::default(),
        }
    }

    /// Sends the `n`th request, which has room in the socket's buffer.
    pub(crate) fn send(&mut self, n: u64) {
        self.stream
            .write_all(self.request.nth(n))
            .expect("the server reads");
    }

    /// Whether the whole answer has arrived.
    pub(crate) fn has_answered(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("the server hung up"),
            Ok(length) => self.answer.take(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{}", io::Error::other(error)),
        }
    }
}
