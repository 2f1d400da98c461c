//! A provider of a model, for tests of agents: a server on loopback that speaks OpenAI's
//! streamed chat completions, and says what the test has it say.
//!
//! The test drives it by hand: each request arrives as an [`Exchange`], which remembers what
//! was asked and sends, piece by piece, what the test wants the model to say.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::patiently;

/// A piece of a response, or the end of the connection in the middle of one.
type Piece = io::Result<Frame<Bytes>>;
type Answer = Response<BoxBody<Bytes, io::Error>>;

/// A server that provides a model.
pub struct Provider {
    address: String,
    requests: mpsc::UnboundedReceiver<Exchange>,
    accepting: JoinHandle<()>,
}

/// A request, and the response to it that the test makes.
pub struct Exchange {
    /// The path that was asked for.
    pub path: String,
    /// The headers of the request.
    pub headers: HeaderMap,
    /// The body of the request.
    pub body: Value,
    /// Where the head of the response goes, until it has begun.
    head: Option<oneshot::Sender<Answer>>,
    pieces: mpsc::Sender<Piece>,
    body_of_answer: Option<mpsc::Receiver<Piece>>,
}

impl Provider {
    /// Starts one.
    pub async fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let (asked, requests) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let asked = asked.clone();
                let service = service_fn(move |request| answer(request, asked.clone()));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // It ends with the host, which closes it, or with the test.
                tokio::spawn(async move {
                    // A connection that breaks is what some tests want.
                    let _ = connection.await;
                });
            }
        });
        Provider {
            address,
            requests,
            accepting,
        }
    }

    /// Where it listens, as `allowed_outbound_hosts` names it.
    pub fn host(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What `OPENAI_BASE_URL` is to be.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.host())
    }

    /// The next request.
    pub async fn asked(&mut self) -> Exchange {
        let asked = patiently(
            "a request to the provider",
            String::new,
            self.requests.recv(),
        );
        asked.await.expect("the provider runs")
    }

    /// Whether no request has come that was not asked for.
    pub fn is_idle(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    asked: mpsc::UnboundedSender<Exchange>,
) -> Result<Answer, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let (head, answer) = oneshot::channel();
    // One piece at a time, so that what was sent has been taken.
    let (pieces, body_of_answer) = mpsc::channel(1);
    let exchange = Exchange {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        head: Some(head),
        pieces,
        body_of_answer: Some(body_of_answer),
    };
    // Nobody waits for requests any more when the test is over.
    let _ = asked.send(exchange);
    // Without an answer the connection breaks.
    answer.await.map_err(io::Error::other)
}

impl Exchange {
    /// Has the model say something.
    pub async fn say(&mut self, text: &str) {
        self.delta(json!({"content": text})).await;
    }

    /// Has the model call a tool, with the arguments in these pieces.
    pub async fn call_tool(&mut self, index: usize, id: &str, name: &str, arguments: &[&str]) {
        let function = json!({"name": name, "arguments": ""});
        let call = json!({"index": index, "id": id, "type": "function", "function": function});
        self.delta(json!({"tool_calls": [call]})).await;
        for piece in arguments {
            let call = json!({"index": index, "function": {"arguments": piece}});
            self.delta(json!({"tool_calls": [call]})).await;
        }
    }

    /// Ends the answer: `stop`, or `tool_calls`.
    pub async fn finish(mut self, reason: &str) {
        self.event(&chunk(json!({}), json!(reason)).to_string())
            .await;
        // Whoever has the reason need not wait for more.
        self.offer("data: [DONE]\n\n").await;
    }

    /// Sends an event with any data.
    pub async fn event(&mut self, data: &str) {
        self.send(format!("data: {data}\n\n")).await;
    }

    /// Sends any bytes, behind the head of an event stream.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) {
        self.begin(StatusCode::OK, "text/event-stream");
        let piece = Ok(Frame::data(bytes.into()));
        let sent = patiently("sending", String::new, self.pieces.send(piece)).await;
        sent.expect("the host reads");
    }

    /// Sends bytes as [`send`](Self::send) does, if anybody reads them.
    pub async fn offer(&mut self, bytes: impl Into<Bytes>) {
        self.begin(StatusCode::OK, "text/event-stream");
        let piece = Ok(Frame::data(bytes.into()));
        // Whoever offers does not mind.
        let _ = patiently("offering", String::new, self.pieces.send(piece)).await;
    }

    /// Breaks the connection in the middle of the response.
    pub async fn break_off(mut self) {
        self.begin(StatusCode::OK, "text/event-stream");
        let broken = Err(io::Error::other("the test wants it"));
        // It may be broken already.
        let _ = self.pieces.send(broken).await;
    }

    /// Answers with a status and JSON in the place of an event stream.
    pub async fn refuse(mut self, status: u16, body: Value) {
        let status = StatusCode::from_u16(status).expect("a status");
        self.begin(status, "application/json");
        let piece = Ok(Frame::data(Bytes::from(body.to_string())));
        let sent = self.pieces.send(piece).await;
        sent.expect("the host reads");
    }

    /// Sends comments, as providers do that take their time, until the host has closed the
    /// connection.
    pub async fn keep_alive_until_closed(&mut self) {
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        let alive = async {
            while !self.pieces.is_closed() {
                pause.tick().await;
                self.offer(": wait\n\n").await;
            }
        };
        patiently("the end of a request", String::new, alive).await;
    }

    /// Waits until the host has closed the connection.
    pub async fn closed(&self) {
        patiently("the end of a request", String::new, self.pieces.closed()).await;
    }

    async fn delta(&mut self, delta: Value) {
        self.event(&chunk(delta, Value::Null).to_string()).await;
    }

    fn begin(&mut self, status: StatusCode, media: &str) {
        let (Some(head), Some(pieces)) = (self.head.take(), self.body_of_answer.take()) else {
            return;
        };
        let pieces = stream::unfold(pieces, async |mut pieces| {
            let piece = pieces.recv().await?;
            Some((piece, pieces))
        });
        let answer = Response::builder()
            .status(status)
            .header("content-type", media)
            .body(BoxBody::new(StreamBody::new(Box::pin(pieces))))
            .expect("a well-formed response");
        // The host may be gone; then there is nobody to answer.
        let _ = head.send(answer);
    }
}

fn chunk(delta: Value, finish_reason: Value) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "test",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    })
}
