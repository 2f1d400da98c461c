//! A request that arrives: its head and its body.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tidegate_core::Failure;
use wasip2::http::types::{IncomingBody, IncomingRequest, Method};
use wasip2::io::streams::StreamError;

use crate::clock;
use crate::head::Head;

/// Most bytes of a body that is taken: the host's `gateway.max-frame-bytes`.
pub const BODY_MAX_BYTES: usize = 1 << 20;
/// Most bytes that are read over of a body that is longer, so that its client, which writes
/// on, hears why it is refused: the host's `gateway.max-discard-bytes`.
const DISCARD_MAX_BYTES: usize = 64 << 20;
/// Time for a body to arrive: the host's `gateway.body-timeout-ms`.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much is read at once.
const PIECE_BYTES: u64 = 64 << 10;

/// The head of a request.
pub fn head(request: &IncomingRequest) -> Head {
    let headers = request.headers().entries().into_iter();
    Head {
        method: method(&request.method()).to_owned(),
        authority: request.authority(),
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect(),
        ..Head::default()
    }
    .of_target(&request.path_with_query().unwrap_or_default())
}

fn method(method: &Method) -> &str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(other) => other,
    }
}

/// The body of a request, at most so long.
pub fn body(request: &IncomingRequest, limit: usize) -> Result<Vec<u8>, Failure> {
    let body = request.consume();
    let body = body.map_err(|()| Failure::request_malformed("the body is gone"))?;
    let until = Instant::now() + BODY_TIMEOUT;
    read(&body, limit, DISCARD_MAX_BYTES, until).map_err(|error| match error {
        ReadError::TooLong => Failure::request_too_large(limit as u64),
        ReadError::Late => Failure::request_timeout("the body"),
        ReadError::Broken => Failure::body_ended_early(),
    })
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It is longer than that.
    TooLong,
    /// It did not arrive in time.
    Late,
    /// It ended early.
    Broken,
}

/// Reads a body of at most `limit` bytes. Of a longer one up to `discard` bytes are read over
/// before it is refused.
pub fn read(
    body: &IncomingBody,
    limit: usize,
    discard: usize,
    until: Instant,
) -> Result<Vec<u8>, ReadError> {
    let stream = body.stream().map_err(|()| ReadError::Broken)?;
    let mut bytes = Vec::new();
    let mut length = 0;
    loop {
        match stream.read(PIECE_BYTES) {
            Ok(piece) if piece.is_empty() => {
                let left = until.saturating_duration_since(Instant::now());
                if !clock::wait(&stream.subscribe(), left) {
                    return Err(read_error(length, limit, ReadError::Late));
                }
            }
            Ok(piece) => {
                length += piece.len();
                match length <= limit {
                    true => bytes.extend(piece),
                    false if length > discard => return Err(ReadError::TooLong),
                    false => {}
                }
            }
            Err(StreamError::Closed) if length > limit => return Err(ReadError::TooLong),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(_)) => {
                return Err(read_error(length, limit, ReadError::Broken));
            }
        }
    }
}

/// What was too long before something went wrong, is that.
fn read_error(length: usize, limit: usize, error: ReadError) -> ReadError {
    match length > limit {
        true => ReadError::TooLong,
        false => error,
    }
}

/// A body as a method's input: JSON text, or none.
pub fn input(body: Vec<u8>) -> Result<Option<String>, Failure> {
    if body.is_empty() {
        return Ok(None);
    }
    let malformed = |detail: String| Failure::body_not_json(detail);
    let text = String::from_utf8(body).map_err(|error| malformed(error.to_string()))?;
    serde_json::from_str::<&RawValue>(&text).map_err(|error| malformed(error.to_string()))?;
    Ok(Some(text))
}
