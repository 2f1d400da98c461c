//! One WebSocket of the load generator: it connects, sends what is queued in one write, and
//! hands out whole text messages without copying them.
//!
//! Invariant: a ping is answered with the next write, so that a server never takes the
//! generator for dead.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::dialect::{Dialect, Heard};
use super::frame::{self, From, Kind};
use crate::server::Server;

/// The key of RFC 6455's example, and what a server makes of it.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// How many connections share a source address: fewer than half of the ports that one has. When
/// all odd or all even ones are taken, the kernel looks through them again for each connection.
const PER_ADDRESS: usize = 12_000;
/// Room for what is read at once, to begin with.
const ROOM: usize = 4 << 10;

/// A connection that was welcomed.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Up to where `input` has been read.
    filled: usize,
    outgoing: Outgoing,
}

/// The server answered, but not with a WebSocket.
#[derive(Debug)]
pub(super) struct NoUpgrade(String);

impl fmt::Display for NoUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a WebSocket, found: {}", self.0)
    }
}

impl std::error::Error for NoUpgrade {}

/// What waits to be sent.
pub(crate) struct Outgoing {
    dialect: Dialect,
    frames: Vec<u8>,
}

impl Outgoing {
    /// Nothing yet, for a server of this dialect.
    pub(crate) fn new(dialect: Dialect) -> Outgoing {
        Outgoing {
            dialect,
            frames: Vec::new(),
        }
    }

    /// Queues a message.
    pub(crate) fn text(&mut self, text: &[u8]) {
        let (before, behind) = self.dialect.around();
        let parts = [before, text, behind];
        frame::append_parts(&mut self.frames, From::Client, Kind::Text, &parts);
    }

    /// Queues what is no message: a word of the dialect.
    fn word(&mut self, word: &[u8]) {
        frame::append(&mut self.frames, From::Client, Kind::Text, word);
    }

    /// The frames, as they go to the socket.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.frames
    }
}

impl Connection {
    /// Connects and waits for the first message, the welcome. `number` spreads many
    /// connections over source addresses.
    pub(crate) async fn open(server: &Server, number: usize) -> Result<Connection> {
        Connection::to(server.address(), server.dialect(), number).await
    }

    /// A connection to a server of another process.
    pub(crate) async fn to(
        server: SocketAddr,
        dialect: Dialect,
        number: usize,
    ) -> Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        let address =
            u8::try_from(number / PER_ADDRESS).context("more addresses than there are")?;
        if address > 0 {
            // Of this server alone: ports that closed connections keep for a while are no other's.
            let [high, low] = server.port().to_be_bytes();
            socket.bind((Ipv4Addr::new(127, high, low, address), 0).into())?;
        }
        let stream = socket.connect(server).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let mut connection = Connection {
            stream,
            input: vec![0; ROOM],
            filled: 0,
            outgoing: Outgoing::new(dialect),
        };
        connection.shake_hands(server).await?;
        if let Some(greeting) = dialect.greeting() {
            connection.outgoing.word(greeting);
            connection.flush().await?;
        }
        connection.message().await.context("the welcome")?;
        Ok(connection)
    }

    async fn shake_hands(&mut self, server: SocketAddr) -> Result<()> {
        let path = self.outgoing.dialect.path();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        let end = loop {
            self.fill().await?;
            let head = &self.input[..self.filled];
            if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
        };
        let head = String::from_utf8_lossy(&self.input[..end]).into_owned();
        let is_upgraded = head.starts_with("HTTP/1.1 101") && head.contains(ACCEPT);
        ensure!(is_upgraded, NoUpgrade(head));
        self.consume(end + 4);
        Ok(())
    }

    /// What to send with the next [`flush`](Self::flush).
    pub(crate) fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        if !self.outgoing.frames.is_empty() {
            self.stream.write_all(&self.outgoing.frames).await?;
            self.outgoing.frames.clear();
        }
        Ok(())
    }

    /// Waits for bytes and visits every text that is then whole. What the visitor queues is
    /// sent before this returns.
    pub(crate) async fn receive(
        &mut self,
        mut visit: impl FnMut(&[u8], &mut Outgoing) -> Result<()>,
    ) -> Result<()> {
        self.fill().await?;
        let mut from = 0;
        while let Some(next) = self.take(from, &mut visit)? {
            from = next;
        }
        self.consume(from);
        self.flush().await
    }

    /// The next text.
    pub(crate) async fn message(&mut self) -> Result<String> {
        let mut message = None;
        loop {
            let next = self.take(0, &mut |text, _| {
                message = Some(String::from_utf8_lossy(text).into_owned());
                Ok(())
            })?;
            self.consume(next.unwrap_or(0));
            self.flush().await?;
            match (message.take(), next) {
                (Some(message), _) => return Ok(message),
                (None, Some(_)) => {}
                (None, None) => self.fill().await?,
            }
        }
    }

    /// Another handle of the socket, for a thread that only writes.
    pub(crate) fn writer(&self) -> Result<std::net::TcpStream> {
        use std::os::fd::AsFd;
        Ok(self.stream.as_fd().try_clone_to_owned()?.into())
    }

    /// Visits the message at `from`; gives where the next one begins.
    fn take(
        &mut self,
        from: usize,
        visit: &mut impl FnMut(&[u8], &mut Outgoing) -> Result<()>,
    ) -> Result<Option<usize>> {
        let bytes = &self.input[from..self.filled];
        let Some(frame) = frame::first(bytes)? else {
            return Ok(None);
        };
        let payload = &bytes[frame.payload..frame.end];
        match frame.kind {
            Kind::Text => match self.outgoing.dialect.hear(payload)? {
                Heard::Message(text) => visit(text, &mut self.outgoing)?,
                Heard::Answer(word) => self.outgoing.word(word),
                Heard::Nothing => {}
            },
            Kind::Ping => {
                let frames = &mut self.outgoing.frames;
                frame::append(frames, From::Client, Kind::Pong, payload);
            }
            Kind::Pong => {}
            Kind::Close => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                bail!("the server closed the connection with {code:?}");
            }
        }
        Ok(Some(from + frame.end))
    }

    async fn fill(&mut self) -> Result<()> {
        if self.filled == self.input.len() {
            self.input.resize(self.filled * 2, 0);
        }
        let read = self.stream.read(&mut self.input[self.filled..]).await?;
        let closed =
            || io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection");
        ensure!(read > 0, closed());
        self.filled += read;
        Ok(())
    }

    fn consume(&mut self, bytes: usize) {
        self.input.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }
}
