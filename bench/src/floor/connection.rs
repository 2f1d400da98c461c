//! One WebSocket of a floor.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::load::connection::ACCEPT;
use crate::load::frame::{self, From, Kind};

/// What a client is told first.
const WELCOME: &[u8] = br#"{"type":"welcome","clientId":"floor"}"#;

/// A connection whose handshake is done.
pub(super) struct Connection {
    reader: OwnedReadHalf,
    writer: Arc<OwnedWriteHalf>,
    input: Vec<u8>,
    /// Where the bytes begin that were not handed out.
    from: usize,
    filled: usize,
}

impl Connection {
    /// Shakes hands with the load generator, whose key is always the same.
    pub(super) async fn accept(stream: TcpStream) -> Result<Connection> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let mut connection = Connection {
            reader,
            writer: Arc::new(writer),
            input: vec![0; 16 << 10],
            from: 0,
            filled: 0,
        };
        let end = loop {
            connection.fill().await?;
            let head = &connection.input[..connection.filled];
            if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
        };
        connection.from = end + 4;
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        )
        .into_bytes();
        frame::append(&mut answer, From::Server, Kind::Text, WELCOME);
        write_all(&connection.writer, &answer).await?;
        Ok(connection)
    }

    /// The socket, to write to.
    pub(super) fn writer(&self) -> &Arc<OwnedWriteHalf> {
        &self.writer
    }

    /// The bytes of a text.
    pub(super) fn text(&self, place: Range<usize>) -> &[u8] {
        &self.input[place]
    }

    /// The next text that is here already.
    pub(super) fn buffered(&mut self) -> Result<Option<Range<usize>>> {
        let bytes = &self.input[self.from..self.filled];
        let Some(found) = frame::first(bytes)? else {
            return Ok(None);
        };
        if found.kind != Kind::Text {
            bail!("the client is done");
        }
        let place = self.from + found.payload..self.from + found.end;
        if let Some(key) = found.mask {
            frame::unmask(&mut self.input[place.clone()], key);
        }
        self.from = place.end;
        Ok(Some(place))
    }

    /// Waits for more bytes. Texts that were handed out are gone then.
    pub(super) async fn fill(&mut self) -> Result<()> {
        self.input.copy_within(self.from..self.filled, 0);
        self.filled -= self.from;
        self.from = 0;
        if self.filled == self.input.len() {
            self.input.resize(self.filled * 2, 0);
        }
        let read = self.reader.read(&mut self.input[self.filled..]).await?;
        ensure!(read > 0, "the client is gone");
        self.filled += read;
        Ok(())
    }
}

/// Writes at once where there is room, and waits for room where there is none.
pub(super) async fn write_all(writer: &OwnedWriteHalf, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match writer.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                writer.writable().await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
