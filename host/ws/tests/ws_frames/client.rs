//! The two ends of a test's connection: a server that upgrades with hyper as the gateway does, and a
//! client of hand-made frames that does nothing by itself.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidegate_ws::{
    self as ws, Ended, Frame, FrameBuilder, Handler, Inbound, Outbound, OutboundLimits, Refused,
    Settings, Socket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUE: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Fails a test that would hang; nothing is concluded from how long anything takes.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("it happens in the end")
}

/// The server's side of one connection.
pub(crate) struct Served {
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) run: JoinHandle<Ended>,
}

impl Served {
    pub(crate) async fn ended(self) -> Ended {
        soon(self.run).await.expect("the connection's task ends")
    }
}

/// A client that does nothing by itself.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

/// Serves one connection with what `handler` makes, and upgrades it.
pub(crate) async fn connect<H: Handler + 'static>(
    settings: Settings,
    handler: impl FnOnce(Arc<Outbound>) -> H + Send + 'static,
) -> (Client, Served) {
    connect_saying(b"", settings, handler).await
}

/// As [`connect`]; the client says `first` in one packet with the handshake.
pub(crate) async fn connect_saying<H: Handler + 'static>(
    first: &[u8],
    settings: Settings,
    handler: impl FnOnce(Arc<Outbound>) -> H + Send + 'static,
) -> (Client, Served) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (send, served) = oneshot::channel();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let once = std::sync::Mutex::new(Some((handler, send)));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let accepted =
                ws::handshake::accept(request.method(), request.version(), request.headers());
            let upgrade = hyper::upgrade::on(&mut request);
            let once = once.lock().unwrap().take();
            let settings = settings.clone();
            async move {
                let accepted = accepted.unwrap();
                let (handler, send) = once.unwrap();
                tokio::spawn(async move {
                    let socket = Socket::from_upgraded(upgrade.await.unwrap(), settings).unwrap();
                    let outbound = Arc::clone(socket.outbound());
                    let mut handler = handler(Arc::clone(&outbound));
                    let run = tokio::spawn(async move { socket.run(&mut handler).await });
                    assert!(send.send(Served { outbound, run }).is_ok());
                });
                Ok::<_, Infallible>(accepted.response::<Empty<Bytes>>())
            }
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await
            .unwrap();
    });
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that a client that does not read is felt early.
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let mut client = Client {
        stream: socket.connect(address).await.unwrap(),
    };
    let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.say(&[request.as_bytes(), first].concat()).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(client.stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    let served = soon(served).await.unwrap();
    soon(server).await.unwrap();
    (client, served)
}

/// A frame as a client sends it.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = match payload.len() {
        len @ 0..=125 => vec![first, 0x80 | len as u8],
        len @ 126..=0xffff => [&[first, 0x80 | 126][..], &(len as u16).to_be_bytes()].concat(),
        len => [&[first, 0x80 | 127][..], &(len as u64).to_be_bytes()].concat(),
    };
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

pub(crate) fn close_body(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

impl Client {
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next frame of the server: its first byte and its payload.
    pub(crate) async fn hear(&mut self) -> (u8, Vec<u8>) {
        soon(async {
            let first = self.stream.read_u8().await.unwrap();
            let len = match self.stream.read_u8().await.unwrap() {
                127 => self.stream.read_u64().await.unwrap() as usize,
                126 => self.stream.read_u16().await.unwrap() as usize,
                len => {
                    assert!(len < 126, "a server does not mask");
                    len as usize
                }
            };
            let mut payload = vec![0; len];
            self.stream.read_exact(&mut payload).await.unwrap();
            (first, payload)
        })
        .await
    }

    pub(crate) async fn hear_text(&mut self) -> String {
        let (first, payload) = self.hear().await;
        assert_eq!(first, FIN | TEXT);
        String::from_utf8(payload).unwrap()
    }

    /// The server's close frame, as the code in it.
    pub(crate) async fn hear_close(&mut self) -> u16 {
        let (first, payload) = self.hear().await;
        assert_eq!(first, FIN | CLOSE);
        u16::from_be_bytes([payload[0], payload[1]])
    }

    /// The server's close frame that has no body, whatever comes before it.
    pub(crate) async fn hear_close_without_code(&mut self) {
        while self.hear().await != (FIN | CLOSE, vec![]) {}
    }

    /// The server's end of the stream, and nothing before it.
    pub(crate) async fn hear_end(&mut self) {
        let mut rest = Vec::new();
        soon(self.stream.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"");
    }
}

/// Sends back what it gets; what is too large, as its size.
pub(crate) struct Echo(pub(crate) Arc<Outbound>);

impl Handler for Echo {
    type Skim = tidegate_ws::Unread;

    fn on_message(&mut self, message: Inbound) -> Option<impl Future<Output = ()> + Send> {
        let frame = match message {
            Inbound::Text(text) => Frame::text(text),
            Inbound::Binary(bytes) => Frame::binary(bytes),
            Inbound::TooLarge { size, .. } => Frame::text(format!("too large: {size}")),
            Inbound::NoRoom { size, .. } => Frame::text(format!("no room: {size}")),
        };
        match self.0.push(frame.clone()) {
            Err(Refused::Full) => Some(async move {
                while self.0.push(frame.clone()) == Err(Refused::Full) {
                    self.0.drained().await;
                }
            }),
            _ => None,
        }
    }
}

pub(crate) async fn echo() -> (Client, Served) {
    connect(Settings::default(), Echo).await
}

/// Hands on what it gets.
pub(crate) fn forward(to: mpsc::UnboundedSender<Inbound>) -> impl Handler {
    move |message| {
        // A test that has seen enough no longer listens.
        let _unheard = to.send(message);
        std::future::ready(())
    }
}

/// A breach is answered with a close frame of `code` and the end of the stream.
pub(crate) async fn breach(bytes: &[u8], code: u16) {
    let (mut client, served) = echo().await;
    client.say(bytes).await;
    assert_eq!(client.hear_close().await, code);
    client.hear_end().await;
    drop(client);
    let ended = served.ended().await;
    assert!(matches!(ended, Ended::Violation(_)), "{ended:?}");
}

/// Says that it works, and that it is done once it is allowed to be.
pub(crate) struct Slow(
    pub(crate) Arc<Outbound>,
    pub(crate) mpsc::UnboundedReceiver<()>,
);

impl Handler for Slow {
    type Skim = tidegate_ws::Unread;

    fn on_message(&mut self, _: Inbound) -> Option<impl Future<Output = ()> + Send> {
        self.0.push(Frame::text("working")).unwrap();
        Some(async {
            if self.1.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            self.0.push(Frame::text("done")).unwrap();
        })
    }
}

pub(crate) fn small_queue() -> Settings {
    Settings {
        outbound: OutboundLimits {
            max_bytes: 64 << 10,
            max_frames: 100,
        },
        ..Settings::default()
    }
}

/// Pushes numbered frames to a client that does not read until one is refused; their number.
pub(crate) fn fill(outbound: &Outbound, size: usize) -> usize {
    let mut count = 0;
    loop {
        let mut frame = FrameBuilder::new();
        frame.extend(&count.to_string().into_bytes());
        frame.extend(&vec![b' '; size]);
        match outbound.push(frame.text().unwrap()) {
            Ok(()) => count += 1,
            Err(refused) => {
                assert!(!matches!(refused, Refused::Closed), "{refused:?}");
                return count;
            }
        }
    }
}
