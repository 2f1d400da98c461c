//! The answer to a request: whole, or a stream of events that begins with the first.

use std::time::{Duration, Instant};

use tidegate_core::Failure;
use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::{OutputStream, StreamError};

use crate::clock;

/// The one answer of a request.
pub struct Response {
    /// Headers that every answer has.
    headers: Vec<(&'static str, String)>,
    /// `HEAD`: the answer is its head alone.
    headless: bool,
    state: State,
}

enum State {
    Unanswered(ResponseOutparam),
    Streaming {
        // Children first: a parent must not be dropped before them.
        stream: OutputStream,
        body: OutgoingBody,
    },
    Ended,
}

/// What becomes of something that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is on its way.
    Sent,
    /// The client is gone.
    Gone,
    /// The client does not read.
    Late,
}

impl Response {
    /// An answer that is still to be given.
    pub fn new(out: ResponseOutparam) -> Response {
        Response {
            headers: Vec::new(),
            headless: false,
            state: State::Unanswered(out),
        }
    }

    /// Gives every answer this header.
    pub fn header(&mut self, name: &'static str, value: impl Into<String>) {
        self.headers.push((name, value.into()));
    }

    /// Answers with the head alone.
    pub fn without_body(&mut self) {
        self.headless = true;
    }

    /// Whether a stream has begun.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// Whether nothing was answered yet.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Unanswered(_))
    }

    /// A JSON document.
    pub fn json(&mut self, status: u16, body: &str) {
        self.whole(status, &[("content-type", "application/json")], Some(body));
    }

    /// No content.
    pub fn empty(&mut self, status: u16) {
        self.whole(status, &[], None);
    }

    /// A failure: as a body of its own, or as the last event of a stream that has begun.
    pub fn fail(&mut self, failure: &Failure) {
        if self.is_streaming() {
            self.event(&crate::sse::event("error", None, &failure.http_body()));
            return self.end();
        }
        let retry_after = || {
            let params = failure.params.as_ref();
            let ms = params.and_then(|params| params.get("retryAfterMs")?.as_u64());
            ms.unwrap_or(1).div_ceil(1000).max(1).to_string()
        };
        match failure.status {
            401 => self.header("www-authenticate", "Bearer"),
            429 | 503 => self.header("retry-after", retry_after()),
            _ => {}
        }
        self.json(failure.status, &failure.http_body());
    }

    fn head(
        &self,
        status: u16,
        headers: &[(&str, &str)],
        length: Option<usize>,
    ) -> OutgoingResponse {
        let fields = Fields::new();
        let own = self.headers.iter();
        let own = own.map(|(name, value)| (*name, value.as_str()));
        for (name, value) in headers.iter().copied().chain(own) {
            // What is not allowed here is left out.
            let _ = fields.append(name, value.as_bytes());
        }
        if let Some(length) = length {
            let _ = fields.append("content-length", length.to_string().as_bytes());
        }
        let response = OutgoingResponse::new(fields);
        let _ = response.set_status_code(status);
        response
    }

    fn take(&mut self) -> Option<ResponseOutparam> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Unanswered(out) => Some(out),
            state => {
                self.state = state;
                None
            }
        }
    }

    fn whole(&mut self, status: u16, headers: &[(&str, &str)], text: Option<&str>) {
        let Some(out) = self.take() else {
            return;
        };
        let mut headers = headers.to_vec();
        if text.is_some() {
            headers.push(("cache-control", "no-store"));
        }
        let response = self.head(status, &headers, text.map(str::len));
        let body = response.body();
        ResponseOutparam::set(out, Ok(response));
        let Ok(body) = body else {
            return;
        };
        if let (Some(text), Ok(stream), false) = (text, body.write(), self.headless) {
            // A client that is gone needs no answer.
            let _ = write(&stream, text.as_bytes(), None);
        }
        let _ = OutgoingBody::finish(body, None);
    }

    /// Begins a stream of events.
    pub fn begin_stream(&mut self) {
        let Some(out) = self.take() else {
            return;
        };
        let headers = [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
        ];
        let response = self.head(200, &headers, None);
        let body = response.body();
        ResponseOutparam::set(out, Ok(response));
        if let Ok(body) = body
            && let Ok(stream) = body.write()
        {
            self.state = State::Streaming { stream, body };
        }
    }

    /// Writes an event, and waits for a client that reads too slowly.
    pub fn event(&mut self, event: &str) -> Written {
        self.event_within(event, None)
    }

    /// Sends an event, which the client has so long at most to take.
    pub fn event_within(&mut self, event: &str, patience: Option<Duration>) -> Written {
        match &self.state {
            State::Streaming { stream, .. } => write(stream, event.as_bytes(), patience),
            _ => Written::Gone,
        }
    }

    /// Whether a client that was being told something has gone.
    pub fn is_gone(&self) -> bool {
        match &self.state {
            State::Streaming { stream, .. } => stream.check_write().is_err(),
            _ => false,
        }
    }

    /// Ends a stream.
    pub fn end(&mut self) {
        if let State::Streaming { stream, body } = std::mem::replace(&mut self.state, State::Ended)
        {
            drop(stream);
            let _ = OutgoingBody::finish(body, None);
        }
    }
}

fn write(stream: &OutputStream, mut bytes: &[u8], patience: Option<Duration>) -> Written {
    let until = patience.map(|patience| Instant::now() + patience);
    let wait = || match until {
        None => {
            stream.subscribe().block();
            true
        }
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            clock::wait(&stream.subscribe(), left)
        }
    };
    let mut send = || -> Result<bool, StreamError> {
        while !bytes.is_empty() {
            match stream.check_write()? {
                0 if !wait() => return Ok(false),
                0 => {}
                room => {
                    let room = usize::try_from(room).unwrap_or(usize::MAX);
                    let (now, later) = bytes.split_at(bytes.len().min(room));
                    stream.write(now)?;
                    bytes = later;
                }
            }
        }
        stream.flush()?;
        // Flushed once it takes something again.
        while stream.check_write()? == 0 {
            if !wait() {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match send() {
        Ok(true) => Written::Sent,
        Ok(false) => Written::Late,
        Err(_) => Written::Gone,
    }
}
