//! HTTP as bytes on a socket, for what no client library would send.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::{Host, patiently};

/// A connection on which anything may be said.
pub struct Raw {
    stream: BufReader<TcpStream>,
    seen: String,
}

/// What a host answers.
#[derive(Debug)]
pub struct Answer {
    /// The status code; below 200 for an interim answer.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, if its length is known.
    pub body: String,
}

impl Raw {
    /// Connects to this host.
    pub async fn to(host: &Host) -> Raw {
        Raw::at(host.address()).await
    }

    /// Connects to whoever listens there.
    pub async fn at(address: &str) -> Raw {
        let stream = patiently("connecting", String::new, TcpStream::connect(address)).await;
        let stream = stream.expect("connecting");
        stream.set_nodelay(true).expect("a TCP option");
        Raw {
            stream: BufReader::new(stream),
            seen: String::new(),
        }
    }

    /// Sends these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.stream.write_all(bytes.as_ref());
        patiently("sending", String::new, sent)
            .await
            .expect("sending");
    }

    /// Closes this side: nothing more will be sent, and everything is still read.
    pub async fn end(&mut self) {
        let ended = self.stream.shutdown();
        patiently("closing a side", String::new, ended)
            .await
            .expect("closing a side");
    }

    /// Breaks the connection off with a reset.
    pub fn reset(self) {
        let _ = self.stream.get_ref().set_zero_linger();
    }

    /// The next answer. Of one that comes in chunks, or to a HEAD, the head alone is read.
    pub async fn answer(&mut self, has_body: bool) -> Answer {
        let mut head = Vec::new();
        loop {
            let line = self.line().await.unwrap_or_else(|| {
                panic!("the connection ended after\n{}", self.seen);
            });
            match line.as_str() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut lines = head.into_iter();
        let status = lines.next().unwrap_or_default();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers: HeaderMap = lines
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                let name: HeaderName = name.parse().ok()?;
                Some((name, HeaderValue::from_str(value.trim()).ok()?))
            })
            .collect();
        let length = headers.get(CONTENT_LENGTH).filter(|_| has_body);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let is_chunked = headers.contains_key(TRANSFER_ENCODING);
        let mut body = vec![0; length.filter(|_| !is_chunked).unwrap_or(0)];
        let read = self.stream.read_exact(&mut body);
        let seen = || self.seen.clone();
        patiently("a body", seen, read).await.expect("a body");
        Answer {
            status: status.unwrap_or_else(|| panic!("no answer of HTTP: {}", self.seen)),
            headers,
            body: String::from_utf8(body).expect("bodies are UTF-8"),
        }
    }

    /// The next line without its end; none at the end of the connection.
    pub async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        let seen = || self.seen.clone();
        // A reset is an end as well.
        let length = patiently("a line", seen, read).await.unwrap_or(0);
        self.seen += &line;
        (length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Waits until the host ends the connection, before which nothing more may come.
    pub async fn ended(&mut self) {
        if let Some(line) = self.line().await {
            panic!("expected the end, found `{line}` after\n{}", self.seen);
        }
    }
}

impl Answer {
    /// A header as text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The code of the failure that the body tells of; empty when it tells of none.
    pub fn code(&self) -> String {
        let body = self.json();
        body["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}
