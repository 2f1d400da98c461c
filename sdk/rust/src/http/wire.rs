//! The requests of a component: `wasi:http` 0.2, as the crate `wasip2` binds it.
//!
//! Only what is called is imported: a component that sends no request does not import
//! `wasi:http`.

use std::time::Duration;

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, Method, OutgoingBody, OutgoingRequest,
    Scheme, http_error_code,
};
use wasip2::io::poll::{self, Pollable};
use wasip2::io::streams::{InputStream, StreamError};

use super::{Request, Response, Source, Url, denied, failed, timeout};
use crate::host::{Flush, Host};
use crate::imports::Imports;
use crate::{Failure, Result};

/// The most that is read at once.
const PIECE_BYTES: u64 = 64 << 10;

pub(super) fn send(url: &Url<'_>, request: &Request) -> Result<Response> {
    let patience = Patience {
        host: url.authority.to_owned(),
        silence: request.timeout,
    };
    let outgoing = outgoing(url, request)?;
    let body = match &request.body {
        Some(bytes) => {
            let body = outgoing.body();
            Some((body.map_err(|()| patience.failed("invalid-body"))?, bytes))
        }
        None => None,
    };
    let response = outgoing_handler::handle(outgoing, None);
    let response = response.map_err(|code| patience.refused(&code))?;
    if let Some((body, bytes)) = body {
        patience.write(body, bytes, &response)?;
    }
    let incoming = loop {
        match response.get() {
            Some(outcome) => break outcome.map_err(|()| patience.failed("internal"))?,
            None => patience.wait(&[&response.subscribe()])?,
        }
    };
    let incoming = incoming.map_err(|code| patience.refused(&code))?;
    let headers = incoming.headers().entries();
    let body = incoming.consume();
    let body = body.map_err(|()| patience.failed("internal"))?;
    let stream = body.stream().map_err(|()| patience.failed("internal"))?;
    Ok(Response {
        status: incoming.status(),
        headers: headers
            .into_iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(&value).into_owned();
                (name.to_ascii_lowercase(), value)
            })
            .collect(),
        host: url.authority.to_owned(),
        body: Box::new(Incoming {
            stream,
            _body: body,
            patience,
        }),
    })
}

fn outgoing(url: &Url<'_>, request: &Request) -> Result<OutgoingRequest> {
    let invalid = |reason| failed(url.authority, reason);
    let headers = Fields::new();
    for (name, value) in &request.headers {
        headers
            .append(name, value.as_bytes())
            .map_err(|_| invalid("invalid-header"))?;
    }
    if let Some(body) = &request.body {
        let length = body.len().to_string();
        headers
            .set("content-length", &[length.into_bytes()])
            .map_err(|_| invalid("invalid-header"))?;
    }
    let outgoing = OutgoingRequest::new(headers);
    let scheme = match url.tls {
        true => Scheme::Https,
        false => Scheme::Http,
    };
    outgoing
        .set_method(&method(&request.method))
        .map_err(|()| invalid("invalid-method"))?;
    outgoing
        .set_scheme(Some(&scheme))
        .and_then(|()| outgoing.set_authority(Some(url.authority)))
        .and_then(|()| outgoing.set_path_with_query(Some(&url.path)))
        .map_err(|()| invalid("invalid-url"))?;
    Ok(outgoing)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// A body that arrives.
struct Incoming {
    // Children first: a parent must not be dropped before them.
    stream: InputStream,
    _body: IncomingBody,
    patience: Patience,
}

impl Source for Incoming {
    fn read(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            match self.stream.read(PIECE_BYTES) {
                Ok(piece) if piece.is_empty() => self.patience.wait(&[&self.stream.subscribe()])?,
                Ok(piece) => return Ok(Some(piece)),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(match http_error_code(&error) {
                        Some(code) => self.patience.refused(&code),
                        None => self.patience.failed("incomplete"),
                    });
                }
            }
        }
    }
}

/// Waiting for a server, for as long as it may be silent.
struct Patience {
    host: String,
    silence: Option<Duration>,
}

impl Patience {
    /// Waits for one of these, after what is staged was declared fit to be seen.
    fn wait(&self, what: &[&Pollable]) -> Result<()> {
        Imports.checkpoint(Flush::Due)?;
        let Some(silence) = self.silence else {
            poll::poll(what);
            return Ok(());
        };
        let nanoseconds = u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX);
        let alarm = monotonic_clock::subscribe_duration(nanoseconds);
        let mut all = what.to_vec();
        all.push(&alarm);
        let ready = poll::poll(&all);
        match ready.iter().any(|index| (*index as usize) < what.len()) {
            true => Ok(()),
            false => Err(timeout(&self.host)),
        }
    }

    /// Writes a body, or as much of it as the server wants to have before it answers.
    fn write(
        &self,
        body: OutgoingBody,
        mut bytes: &[u8],
        response: &FutureIncomingResponse,
    ) -> Result<()> {
        let stream = body.write().map_err(|()| self.failed("internal"))?;
        let (writable, answered) = (stream.subscribe(), response.subscribe());
        while !bytes.is_empty() {
            match stream.check_write() {
                Ok(0) if answered.ready() => break,
                Ok(0) => self.wait(&[&writable, &answered])?,
                Ok(room) => {
                    let room = usize::try_from(room).unwrap_or(usize::MAX);
                    let (piece, rest) = bytes.split_at(bytes.len().min(room));
                    if stream.write(piece).is_err() {
                        break;
                    }
                    bytes = rest;
                }
                // Nobody reads it: the response says why.
                Err(_) => break,
            }
        }
        drop((writable, answered, stream));
        if bytes.is_empty() {
            OutgoingBody::finish(body, None).map_err(|code| self.refused(&code))?;
        }
        Ok(())
    }

    fn refused(&self, code: &ErrorCode) -> Failure {
        match code {
            ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => denied(&self.host),
            ErrorCode::DnsTimeout
            | ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionReadTimeout
            | ErrorCode::ConnectionWriteTimeout
            | ErrorCode::HttpResponseTimeout => timeout(&self.host),
            other => self.failed(&name(other)),
        }
    }

    fn failed(&self, reason: &str) -> Failure {
        failed(&self.host, reason)
    }
}

/// The name that WASI gives the error: `connection-refused`.
fn name(code: &ErrorCode) -> String {
    let shown = format!("{code:?}");
    let shown = shown.rsplit("ErrorCode::").next().unwrap_or_default();
    let mut name = String::new();
    for letter in shown.chars().take_while(char::is_ascii_alphanumeric) {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}
