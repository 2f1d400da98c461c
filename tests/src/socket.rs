//! A WebSocket client that speaks the protocol of `docs/protocol.md`, and remembers all it
//! said and heard for the message of a test that fails.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{Actor, Host, dialect, patiently};

/// A connection that has been welcomed.
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    id: String,
    welcome: Value,
    calls: u32,
    transcript: Vec<String>,
}

/// What came of a call.
#[derive(Debug)]
pub struct Reply {
    /// The `rpc:result` frame.
    pub frame: Value,
    /// The frames that came between the call and its result.
    pub before: Vec<Value>,
}

/// How the other side closed the socket.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close code; 1006 when the connection broke without one.
    pub code: u16,
    /// The reason that came with it.
    pub reason: String,
}

impl Socket {
    /// Connects at this path and reads the welcome.
    pub async fn connect(host: &Host, path: &str) -> Socket {
        Socket::over(TcpSocket::new_v4(), host, path).await
    }

    /// Connects as the user of this token.
    pub async fn signed_in(host: &Host, token: &str) -> Socket {
        Socket::connect(host, &format!("/ws?token={token}")).await
    }

    /// Connects with so little room for what is not read yet that a client that stops
    /// reading is soon noticed.
    pub async fn connect_narrow(host: &Host) -> Socket {
        let socket = TcpSocket::new_v4().and_then(|socket| {
            socket.set_recv_buffer_size(4096)?;
            Ok(socket)
        });
        Socket::over(socket, host, "/ws").await
    }

    async fn over(socket: std::io::Result<TcpSocket>, host: &Host, path: &str) -> Socket {
        let address = host.address();
        let shaking_hands = async {
            let socket = socket.expect("a TCP socket");
            let address = address.parse().expect("an address");
            let stream = socket.connect(address).await.expect("connecting");
            stream.set_nodelay(true).expect("a TCP option");
            let url = format!("ws://{address}{path}");
            let limits = WebSocketConfig::default()
                .max_message_size(None)
                .max_frame_size(None);
            tokio_tungstenite::client_async_with_config(url, stream, Some(limits)).await
        };
        let (stream, _) = patiently("the handshake", String::new, shaking_hands)
            .await
            .expect("a WebSocket");
        let mut socket = Socket {
            stream,
            id: String::new(),
            welcome: Value::Null,
            calls: 0,
            transcript: Vec::new(),
        };
        let welcome = socket.expect_type("welcome").await;
        let id = welcome["clientId"].as_str();
        socket.id = id.expect("a welcome names the client").to_owned();
        socket.welcome = welcome;
        socket
    }

    /// The connection's id, from the welcome.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The frame that it was welcomed with.
    pub fn welcome(&self) -> &Value {
        &self.welcome
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    /// Sends a text frame that holds anything.
    pub async fn send_text(&mut self, text: &str) {
        self.transcript.push(format!("-> {}", shortened(text)));
        self.push(Message::text(text)).await;
    }

    /// Sends a binary frame.
    pub async fn send_binary(&mut self, bytes: &[u8]) {
        let shown = String::from_utf8_lossy(bytes);
        self.transcript
            .push(format!("-> binary {}", shortened(&shown)));
        self.push(Message::binary(bytes.to_vec())).await;
    }

    /// Sends a text frame whose payload is not UTF-8.
    pub async fn send_broken_text(&mut self, bytes: &[u8]) {
        self.transcript
            .push(format!("-> text {}", bytes.escape_ascii()));
        let text = OpCode::Data(Data::Text);
        let frame = Frame::message(bytes.to_vec(), text, true);
        self.push(Message::Frame(frame)).await;
    }

    /// Sends a part of a text message, of which there may be more.
    pub async fn send_part(&mut self, text: &str, is_first: bool, is_last: bool) {
        self.transcript.push(format!("-> part {}", shortened(text)));
        let kind = match is_first {
            true => Data::Text,
            false => Data::Continue,
        };
        let frame = Frame::message(text.to_owned(), OpCode::Data(kind), is_last);
        self.push(Message::Frame(frame)).await;
    }

    /// Sends a text frame that the other side may close the socket over, at any point, and
    /// waits until it has.
    pub async fn send_until_closed(&mut self, text: &str) -> Closed {
        self.transcript.push(format!("-> {}", shortened(text)));
        // A failure only says that the socket is closed already.
        let _ = self.stream.send(Message::text(text)).await;
        self.closed().await
    }

    async fn push(&mut self, message: Message) {
        let sent = self.stream.send(message);
        let transcript = || self.transcript.join("\n");
        if let Err(error) = patiently("sending", transcript, sent).await {
            panic!("sending failed: {error}\n{}", self.transcript.join("\n"));
        }
    }

    /// The next frame.
    pub async fn next(&mut self) -> Value {
        match self.read().await {
            Ok(frame) => frame,
            Err(closed) => panic!(
                "expected a frame, found {closed:?} after\n{}",
                self.transcript.join("\n")
            ),
        }
    }

    /// The next frame, or how the other side closed the socket.
    pub async fn try_next(&mut self) -> Result<Value, Closed> {
        self.read().await
    }

    /// The next frame, which must be of this type.
    pub async fn expect_type(&mut self, kind: &str) -> Value {
        let frame = self.next().await;
        assert_eq!(
            frame["type"],
            kind,
            "expected {kind} as the last of\n{}",
            self.transcript.join("\n")
        );
        frame
    }

    /// Reads over what is left, until the other side closes the socket.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.read().await {
                return closed;
            }
        }
    }

    /// Closes the socket and waits until the other side has, too.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
        self.closed().await;
    }

    async fn read(&mut self) -> Result<Value, Closed> {
        loop {
            let next = self.stream.next();
            let transcript = || self.transcript.join("\n");
            let message = patiently("the next frame", transcript, next).await;
            match message {
                Some(Ok(Message::Text(text))) => {
                    self.transcript.push(format!("<- {}", shortened(&text)));
                    return match serde_json::from_str(&text) {
                        Ok(frame) => Ok(frame),
                        Err(error) => panic!("a frame is no JSON: {error}: {text}"),
                    };
                }
                Some(Ok(Message::Close(frame))) => {
                    let closed = frame.map_or(Closed::broken(), |frame| Closed {
                        code: frame.code.into(),
                        reason: frame.reason.to_string(),
                    });
                    // Reading on sends the answer that the other side waits for.
                    let end = async {
                        while let Some(Ok(_)) = self.stream.next().await {}
                        // An error only says that the connection is gone already.
                        let _ = self.stream.get_mut().shutdown().await;
                    };
                    patiently("the end of the connection", String::new, end).await;
                    return Err(closed);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(_))) => panic!("the host sent a binary frame"),
                None | Some(Err(Error::ConnectionClosed | Error::Io(_) | Error::Protocol(_))) => {
                    return Err(Closed::broken());
                }
                Some(Err(error)) => panic!("{error}\n{}", self.transcript.join("\n")),
            }
        }
    }

    /// Subscribes to the state and returns the snapshot frame.
    pub async fn subscribe_state(&mut self, actor: &Actor) -> Value {
        self.send(subscription("state:sub", actor)).await;
        self.expect_type("state:snapshot").await
    }

    /// Subscribes to the state and follows it, over everything else that comes, until it is
    /// as wanted. Returns it.
    pub async fn watch(&mut self, actor: &Actor, wanted: impl Fn(&Value) -> bool) -> Value {
        self.send(subscription("state:sub", actor)).await;
        let mut state = None;
        loop {
            let frame = self.next().await;
            let is_of = frame["actor"] == *actor.kind && frame["actorId"] == *actor.id;
            match (frame["type"].as_str(), &mut state) {
                (Some("state:snapshot"), state) if is_of => *state = Some(frame["state"].clone()),
                (Some("state:patch"), Some(state)) if is_of => {
                    dialect::apply(state, &frame["patches"]);
                }
                _ => continue,
            }
            if let Some(state) = state.take_if(|state| wanted(state)) {
                return state;
            }
        }
    }

    /// Ends the subscription to the state.
    pub async fn unsubscribe_state(&mut self, actor: &Actor) {
        self.send(subscription("state:unsub", actor)).await;
    }

    /// Subscribes to the events, which nothing acknowledges.
    pub async fn subscribe_events(&mut self, actor: &Actor) {
        self.send(subscription("event:sub", actor)).await;
    }

    /// Ends the subscription to the events.
    pub async fn unsubscribe_events(&mut self, actor: &Actor) {
        self.send(subscription("event:unsub", actor)).await;
    }

    /// Sends a call and returns its id, without waiting for the result.
    pub async fn begin_call(
        &mut self,
        actor: &Actor,
        method: &str,
        input: impl Into<Option<Value>>,
    ) -> String {
        self.calls += 1;
        let id = format!("call-{}", self.calls);
        let mut frame = json!({
            "type": "rpc", "id": id,
            "actor": actor.kind, "actorId": actor.id, "method": method,
        });
        if let Some(input) = input.into() {
            frame["input"] = input;
        }
        self.send(frame).await;
        id
    }

    /// Sends a call unless the other side has closed the socket; whether it was sent.
    pub async fn try_call(&mut self, actor: &Actor, method: &str, input: Value) -> bool {
        self.calls += 1;
        let frame = json!({
            "type": "rpc", "id": format!("call-{}", self.calls),
            "actor": actor.kind, "actorId": actor.id, "method": method, "input": input,
        });
        self.try_send(frame).await
    }

    /// Asks for the state unless the other side has closed the socket; whether it did.
    pub async fn try_subscribe_state(&mut self, actor: &Actor) -> bool {
        self.try_send(subscription("state:sub", actor)).await
    }

    /// Sends a frame unless the other side has closed the socket; whether it was sent.
    pub async fn try_send(&mut self, frame: Value) -> bool {
        let text = frame.to_string();
        self.transcript.push(format!("-> {}", shortened(&text)));
        let sent = self.stream.send(Message::text(text));
        patiently("sending", String::new, sent).await.is_ok()
    }

    /// The result of the call with this id, and what came before it.
    pub async fn result_of(&mut self, id: &str) -> Reply {
        let mut before = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["type"] == "rpc:result" && frame["id"] == id {
                return Reply { frame, before };
            }
            before.push(frame);
        }
    }

    /// Calls a method and waits for its result.
    pub async fn call(
        &mut self,
        actor: &Actor,
        method: &str,
        input: impl Into<Option<Value>>,
    ) -> Reply {
        let id = self.begin_call(actor, method, input).await;
        self.result_of(&id).await
    }

    /// Breaks the connection as a power cut does: without a word, and with data unread.
    pub fn vanish(self) {
        // A zero linger makes the kernel send a reset in place of an orderly end.
        let _ = self.stream.get_ref().set_zero_linger();
    }
}

impl Reply {
    /// The result; `null` where there is none.
    #[track_caller]
    pub fn result(&self) -> Value {
        assert_eq!(
            self.frame.get("error"),
            None,
            "the call failed: {}",
            self.frame
        );
        self.frame.get("result").cloned().unwrap_or_default()
    }

    /// The error's text.
    #[track_caller]
    pub fn error(&self) -> &str {
        let error = self.frame["error"].as_str();
        error.unwrap_or_else(|| panic!("the call succeeded: {}", self.frame))
    }

    /// The failure's code.
    #[track_caller]
    pub fn code(&self) -> &str {
        let code = self.frame["failure"]["code"].as_str();
        code.unwrap_or_else(|| panic!("the call did not fail with a code: {}", self.frame))
    }

    /// The types of the frames that came before the result, in order.
    pub fn types_before(&self) -> Vec<&str> {
        self.before
            .iter()
            .filter_map(|frame| frame["type"].as_str())
            .collect()
    }

    /// The operations of the only patch that came before the result.
    #[track_caller]
    pub fn patches(&self) -> &Value {
        let mut patches = self
            .before
            .iter()
            .filter(|frame| frame["type"] == "state:patch");
        match (patches.next(), patches.next()) {
            (Some(patch), None) => &patch["patches"],
            _ => panic!("expected one patch, found {:?}", self.before),
        }
    }
}

impl Closed {
    fn broken() -> Closed {
        Closed {
            code: 1006,
            reason: String::new(),
        }
    }
}

fn subscription(kind: &str, actor: &Actor) -> Value {
    json!({"type": kind, "actor": actor.kind, "actorId": actor.id})
}

fn shortened(text: &str) -> String {
    const LENGTH: usize = 1000;
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
