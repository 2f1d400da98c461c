//! HTTP requests to the hosts that the application allows: [`Request`] sends, [`Response`]
//! is read as it arrives, as a whole or line by line.
//!
//! A component may reach what its `allowed_outbound_hosts` in `spin.toml` lists, and nothing
//! else. Requests are *live*: they leave while the turn runs and are not undone when it
//! fails. All is bounded by the turn's deadline.
//!
//! While a streaming method waits here, its subscribers see what it has staged. A
//! [`Live`](crate::Live) state is staged when its context is taken, so wait with
//! [`send_in`](Request::send_in) and [`next_in`](Lines::next_in), which want the context.
//!
//! ```no_run
//! use tidegate_sdk::http::Request;
//! use tidegate_sdk::prelude::*;
//!
//! fn first_words(prompt: &str) -> Result<Vec<String>> {
//!     let response = Request::post("https://api.example.com/v1/complete")
//!         .header("authorization", "Bearer …")
//!         .json(&serde_json::json!({"prompt": prompt, "stream": true}))
//!         .send()?;
//!     if response.status() != 200 {
//!         return Err(Failure::new("agent.refused").param("status", response.status()));
//!     }
//!     response.lines().take(10).collect()
//! }
//! ```
//!
//! | failure | when | params |
//! |---|---|---|
//! | `http.denied` | the host is not in the component's list | `host` |
//! | `http.timeout` | the server did not answer, or paused too long | `host` |
//! | `http.failed` | anything else: no connection, a response that breaks off, … | `host`, `reason` |
//!
//! A response with the status of an error is not a failure.
//!
//! Outside of a component, in native tests, every request fails with `http.failed` and the
//! reason `not-in-a-component`.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Failure, Result};

#[cfg(target_family = "wasm")]
mod wire;

/// How long a line or a whole text may be.
const MAX_BYTES: usize = 16 << 20;

/// A request, before it is sent.
///
/// ```
/// use std::time::Duration;
/// use tidegate_sdk::http::Request;
///
/// let request = Request::get("https://api.example.com/v1/models")
///     .header("accept", "application/json")
///     .timeout(Duration::from_secs(10));
/// # let _ = request;
/// ```
#[cfg_attr(
    not(target_family = "wasm"),
    allow(dead_code, reason = "only a component sends it")
)]
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    timeout: Option<Duration>,
    /// What is wrong with it already.
    invalid: Option<&'static str>,
}

impl Request {
    /// A request with any method.
    ///
    /// ```
    /// # use tidegate_sdk::http::Request;
    /// let request = Request::new("OPTIONS", "https://api.example.com/");
    /// # let _ = request;
    /// ```
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            timeout: None,
            invalid: None,
        }
    }

    /// `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// `PUT`.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// `PATCH`.
    pub fn patch(url: impl Into<String>) -> Self {
        Self::new("PATCH", url)
    }

    /// `DELETE`.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// Adds a header. The host sets those that concern the connection itself (`host`,
    /// `connection`, `transfer-encoding`, …) and refuses them here.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends this value as JSON, with its content type.
    ///
    /// ```
    /// # use tidegate_sdk::http::Request;
    /// let request = Request::post("https://api.example.com/v1/items").json(&["a", "b"]);
    /// # let _ = request;
    /// ```
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.header("content-type", "application/json").body(body),
            Err(_) => {
                self.invalid = Some("invalid-body");
                self
            }
        }
    }

    /// Sends these bytes.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// How long the server may be silent: before its response begins, and between any two
    /// parts of it. The host has limits of its own, which hold as well.
    pub fn timeout(mut self, silence: Duration) -> Self {
        self.timeout = Some(silence);
        self
    }

    /// Sends the request and waits until the response begins.
    ///
    /// # Errors
    ///
    /// The failures of [this module](self).
    pub fn send(self) -> Result<Response> {
        let url = Url::parse(&self.url).ok_or_else(|| failed("", "invalid-url"))?;
        if let Some(reason) = self.invalid {
            return Err(failed(url.authority, reason));
        }
        #[cfg(target_family = "wasm")]
        return wire::send(&url, &self);
        #[cfg(not(target_family = "wasm"))]
        Err(failed(url.authority, "not-in-a-component"))
    }

    /// [`send`](Self::send) in a streaming method: subscribers see what is staged while it
    /// waits.
    ///
    /// # Errors
    ///
    /// The failures of [this module](self), and the one that the turn is to fail with in any
    /// case: then nothing is sent.
    pub fn send_in<A>(self, ctx: &mut Context<A>) -> Result<Response> {
        ctx.before_waiting()?;
        self.send()
    }
}

/// The parts of a URL that a request is made of.
#[cfg_attr(
    not(target_family = "wasm"),
    allow(dead_code, reason = "only a component sends it")
)]
#[derive(Debug, PartialEq)]
struct Url<'a> {
    tls: bool,
    authority: &'a str,
    /// Begins with a slash.
    path: String,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ => return None,
        };
        // A fragment is for whoever reads the response.
        let rest = rest.split('#').next()?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() || authority.contains(['@', '\\']) {
            return None;
        }
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        Some(Self {
            tls,
            authority,
            path,
        })
    }
}

/// A response whose body is still to be read.
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    host: String,
    body: Box<dyn Source>,
}

/// Where a body comes from, piece by piece.
trait Source {
    /// The next piece, which is not empty. `None` at the end of the body.
    fn read(&mut self) -> Result<Option<Vec<u8>>>;
}

impl Response {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// All headers, their names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The lines of the body, each as soon as it has arrived, without its line break. The
    /// last one needs none.
    ///
    /// The first failure is the last item. `http.failed` has the reason `too-large` for a
    /// line beyond 16 MiB, and `not-utf8` for one that is no text.
    pub fn lines(self) -> Lines {
        Lines {
            host: self.host,
            body: Some(self.body),
            buffer: Vec::new(),
            searched: 0,
        }
    }

    /// The whole body.
    ///
    /// # Errors
    ///
    /// `http.failed` with the reason `too-large` beyond 16 MiB, and the failures of
    /// [this module](self).
    pub fn bytes(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.body.read()? {
            if bytes.len() + piece.len() > MAX_BYTES {
                return Err(failed(&self.host, "too-large"));
            }
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    /// The whole body, a UTF-8 text.
    ///
    /// # Errors
    ///
    /// As for [`bytes`](Self::bytes); the reason `not-utf8` for what is no text.
    pub fn text(self) -> Result<String> {
        let host = self.host.clone();
        String::from_utf8(self.bytes()?).map_err(|_| failed(&host, "not-utf8"))
    }

    /// The whole body, read as JSON.
    ///
    /// # Errors
    ///
    /// As for [`bytes`](Self::bytes); the reason `invalid-json` for what is not a `T`.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let host = self.host.clone();
        serde_json::from_slice(&self.bytes()?).map_err(|_| failed(&host, "invalid-json"))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// The lines of a [`Response`].
pub struct Lines {
    host: String,
    /// `None` when it has ended or failed.
    body: Option<Box<dyn Source>>,
    /// What has arrived and was not yet given out.
    buffer: Vec<u8>,
    /// So much of it is known to hold no line break.
    searched: usize,
}

impl Lines {
    /// The next line in a streaming method: subscribers see what is staged while it waits.
    /// When the turn is to fail in any case, its failure is the last item.
    pub fn next_in<A>(&mut self, ctx: &mut Context<A>) -> Option<Result<String>> {
        match ctx.before_waiting() {
            Ok(()) => self.next(),
            Err(_) if self.is_finished() => None,
            Err(failure) => {
                self.finish();
                Some(Err(failure))
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.body.is_none() && self.buffer.is_empty()
    }

    fn finish(&mut self) {
        self.body = None;
        self.buffer.clear();
        self.searched = 0;
    }

    fn line(&self, mut bytes: Vec<u8>) -> Result<String> {
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        String::from_utf8(bytes).map_err(|_| failed(&self.host, "not-utf8"))
    }

    fn advance(&mut self) -> Result<Option<String>> {
        loop {
            let unsearched = &self.buffer[self.searched..];
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                return self.line(line).map(Some);
            }
            self.searched = self.buffer.len();
            let Some(body) = &mut self.body else {
                return Ok(None);
            };
            match body.read()? {
                Some(piece) if self.buffer.len() + piece.len() > MAX_BYTES => {
                    return Err(failed(&self.host, "too-large"));
                }
                Some(piece) => self.buffer.extend(piece),
                None => {
                    self.body = None;
                    let last = std::mem::take(&mut self.buffer);
                    self.searched = 0;
                    return match last.is_empty() {
                        true => Ok(None),
                        false => self.line(last).map(Some),
                    };
                }
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.finish();
        }
        next.transpose()
    }
}

impl std::iter::FusedIterator for Lines {}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

#[cfg_attr(
    not(target_family = "wasm"),
    allow(dead_code, reason = "only a component sends it")
)]
fn denied(host: &str) -> Failure {
    Failure::new("http.denied")
        .message("the application does not allow requests to this host")
        .param("host", host)
        .status(500)
}

#[cfg_attr(
    not(target_family = "wasm"),
    allow(dead_code, reason = "only a component sends it")
)]
fn timeout(host: &str) -> Failure {
    Failure::new("http.timeout")
        .message("another server did not answer in time")
        .param("host", host)
        .status(504)
}

fn failed(host: &str, reason: &str) -> Failure {
    Failure::new("http.failed")
        .message("a request to another server failed")
        .param("host", host)
        .param("reason", reason)
        .status(502)
}

#[cfg(test)]
mod tests;
