//! HTTP/1.1 requests, each on a connection of its own, and the event streams that some of
//! them answer with.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::patiently;

/// A request that is about to be sent.
pub struct Request {
    address: String,
    request: http::Request<Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// An open `text/event-stream`.
pub struct EventStream {
    body: Incoming,
    /// What has arrived of the event that is not complete yet.
    rest: String,
    seen: Vec<String>,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerEvent {
    /// Its type.
    pub event: String,
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its data, which is always JSON.
    pub data: Value,
}

impl Request {
    /// A request to the host at this address.
    pub fn new(address: &str, method: Method, path: &str) -> Request {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, address)
            .body(Full::default())
            .expect("a well-formed request");
        Request {
            address: address.to_owned(),
            request,
        }
    }

    /// Sets a header, in place of one that is there.
    pub fn header(mut self, name: &'static str, value: &str) -> Request {
        let value = HeaderValue::from_str(value).expect("a well-formed header");
        self.request
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
        self
    }

    /// Sends JSON.
    pub fn json(self, body: &Value) -> Request {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    /// Sends these bytes.
    pub fn body(mut self, body: impl Into<Bytes>) -> Request {
        *self.request.body_mut() = Full::new(body.into());
        self
    }

    /// Sends the request and reads the whole answer.
    pub async fn send(self) -> Response {
        let what = self.shown();
        let exchange = async {
            let (parts, body) = self.begin().await.into_parts();
            let body = body.collect().await.expect("reading the body").to_bytes();
            Response {
                status: parts.status,
                headers: parts.headers,
                body,
            }
        };
        patiently(&what, String::new, exchange).await
    }

    /// Sends it, unless the connection breaks before the answer is there.
    pub async fn try_send(self) -> Option<Response> {
        let what = self.shown();
        let exchange = async {
            let (parts, body) = self.try_begin().await?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Response {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        patiently(&what, String::new, exchange).await
    }

    /// Sends the request and expects a stream of events.
    pub async fn stream(self) -> EventStream {
        let request = self.header("accept", "text/event-stream");
        let what = request.shown();
        let response = patiently(&what, String::new, request.begin()).await;
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        assert!(
            response.status() == StatusCode::OK && kind.starts_with("text/event-stream"),
            "{what}: expected an event stream, found {} {kind}",
            response.status(),
        );
        EventStream {
            body: response.into_body(),
            rest: String::new(),
            seen: Vec::new(),
        }
    }

    /// Sends the request and looks at the head of the answer alone.
    pub async fn head(self) -> http::response::Parts {
        let what = self.shown();
        let response = patiently(&what, String::new, self.begin()).await;
        response.into_parts().0
    }

    /// Sends the request and looks at the status alone.
    pub async fn status(self) -> StatusCode {
        let what = self.shown();
        patiently(&what, String::new, self.begin()).await.status()
    }

    fn shown(&self) -> String {
        format!("{} {}", self.request.method(), self.request.uri())
    }

    async fn begin(self) -> http::Response<Incoming> {
        let stream = TcpStream::connect(&self.address).await.expect("connecting");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("an HTTP connection");
        // Ends with the response, or with the body that is dropped.
        tokio::spawn(connection);
        sender.send_request(self.request).await.expect("an answer")
    }

    async fn try_begin(self) -> Option<http::Response<Incoming>> {
        let stream = TcpStream::connect(&self.address).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(self.request).await.ok()
    }
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("expected JSON, found {:?}: {error}", self.body),
        }
    }

    /// Asserts that this is a JSON error with this status and code, and returns the error.
    #[track_caller]
    pub fn failed(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!(
            (self.status.as_u16(), &body["error"]["code"]),
            (status, &Value::from(code)),
            "{body}"
        );
        body["error"].clone()
    }
}

impl EventStream {
    /// The next event.
    pub async fn next(&mut self) -> ServerEvent {
        let seen = self.seen.join("\n");
        let next = self.read();
        let event = patiently("the next server-sent event", || seen.clone(), next).await;
        event.unwrap_or_else(|| panic!("the stream ended after\n{seen}"))
    }

    /// The next event, which must be of this type.
    pub async fn expect(&mut self, event: &str) -> ServerEvent {
        let next = self.next().await;
        assert_eq!(next.event, event, "{next:?} after {:?}", self.seen);
        next
    }

    /// The data of the event that was read last, as it was sent.
    pub fn data(&self) -> &str {
        let lines = self.seen.last().map_or("", String::as_str).lines();
        let mut data = lines.filter_map(|line| line.strip_prefix("data: "));
        data.next().unwrap_or_default()
    }

    /// Waits for the end of the stream, at which no event may be left.
    pub async fn ends(&mut self) {
        let seen = self.seen.join("\n");
        let event = patiently("the end of the stream", || seen.clone(), self.read()).await;
        assert_eq!(event, None);
    }

    /// Reads what is left, however the stream ends.
    pub async fn rest(mut self) -> Vec<ServerEvent> {
        let mut events = Vec::new();
        let reading = async {
            while let Some(Ok(frame)) = self.body.frame().await {
                if let Ok(data) = frame.into_data() {
                    self.rest += &String::from_utf8_lossy(&data);
                }
            }
        };
        patiently("the end of the stream", String::new, reading).await;
        while let Some(end) = self.rest.find("\n\n") {
            let block: String = self.rest.drain(..end + 2).collect();
            events.extend(ServerEvent::parse(&block));
        }
        events
    }

    async fn read(&mut self) -> Option<ServerEvent> {
        loop {
            while let Some(end) = self.rest.find("\n\n") {
                let block: String = self.rest.drain(..end + 2).collect();
                if let Some(event) = ServerEvent::parse(&block) {
                    self.seen.push(block);
                    return Some(event);
                }
            }
            let frame = self.body.frame().await?.expect("reading the stream");
            if let Ok(data) = frame.into_data() {
                self.rest += std::str::from_utf8(&data).expect("events are whole UTF-8");
            }
        }
    }
}

impl ServerEvent {
    /// Reads one block of a stream; `None` for one that holds only comments or settings.
    fn parse(block: &str) -> Option<ServerEvent> {
        let field = |name: &str| {
            let values: Vec<&str> = block
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|value| value.strip_prefix(' ').unwrap_or(value))
                .collect();
            (!values.is_empty()).then(|| values.join("\n"))
        };
        let data = field("data")?;
        Some(ServerEvent {
            event: field("event").unwrap_or_else(|| "message".to_owned()),
            id: field("id"),
            data: serde_json::from_str(&data)
                .unwrap_or_else(|error| panic!("expected JSON, found {data}: {error}")),
        })
    }
}
