//! Requests to other components of the application, through Spin's internal host.

use std::time::Instant;

use tidegate_core::Failure;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, Scheme,
};
use wasip2::io::streams::StreamError;

use crate::incoming::{self, ReadError};
use crate::signature::{About, HEADER, Statement};
use crate::{clock, head};

/// Most bytes of an answer.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A request to another component.
#[derive(Debug)]
pub struct Request<'a> {
    /// The component, by its id in the manifest.
    pub component: &'a str,
    /// `POST`
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Further headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: &'a [u8],
}

/// What is under way.
pub struct Pending(FutureIncomingResponse);

/// An answer that is there as a whole.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The manifest does not let this component send requests to that one.
    #[error(
        "the manifest does not allow requests to `{0}`: add `http://{0}.spin.internal` to \
         allowed_outbound_hosts"
    )]
    NotAllowed(String),
    /// It did not come in time.
    #[error("the answer did not come in time")]
    Late,
    /// The other side broke off, or was never there.
    #[error("`{0}` did not answer: {1}")]
    Broken(String, String),
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Failure {
        match &error {
            SendError::NotAllowed(_) => Failure::unsupported_on_spin(error),
            SendError::Late => Failure::call_not_sent(error),
            SendError::Broken(..) => Failure::internal(error),
        }
    }
}

/// The path of an operation on an actor.
pub fn actor_path(prefix: &str, actor: &str, id: &str) -> String {
    format!(
        "{prefix}/{}/{}",
        head::percent_encode(actor),
        head::percent_encode(id)
    )
}

impl Request<'_> {
    /// Has the request say who sends it.
    #[must_use]
    pub fn signed(mut self, key: &[u8], statement: &Statement) -> Self {
        let about = About {
            method: self.method,
            path: self.target,
            body: self.body,
        };
        let value = statement.sign(key, about);
        self.headers.push((HEADER.to_owned(), value.into_bytes()));
        self
    }

    /// Sends it.
    pub fn send(&self) -> Result<Pending, SendError> {
        let broken = |what: &str| SendError::Broken(self.component.to_owned(), what.to_owned());
        let headers = Fields::new();
        for (name, value) in &self.headers {
            let added = headers.append(name, value);
            added.map_err(|_| broken("a header is not allowed"))?;
        }
        let length = self.body.len().to_string().into_bytes();
        let set = headers.set("content-length", &[length]);
        set.map_err(|_| broken("a header is not allowed"))?;
        let request = OutgoingRequest::new(headers);
        let method = match self.method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            _ => Method::Post,
        };
        let authority = format!("{}.spin.internal", self.component);
        request
            .set_method(&method)
            .and_then(|()| request.set_scheme(Some(&Scheme::Http)))
            .and_then(|()| request.set_authority(Some(&authority)))
            .and_then(|()| request.set_path_with_query(Some(self.target)))
            .map_err(|()| broken("the address is not valid"))?;
        let body = request.body().map_err(|()| broken("no body"))?;
        let response = outgoing_handler::handle(request, None);
        let response = response.map_err(|code| self.refused(&code))?;
        // What fails here shows in the answer.
        let _ = write(&body, self.body);
        let _ = OutgoingBody::finish(body, None);
        Ok(Pending(response))
    }

    fn refused(&self, error: &ErrorCode) -> SendError {
        match error {
            ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
                SendError::NotAllowed(self.component.to_owned())
            }
            ErrorCode::ConnectionTimeout | ErrorCode::HttpResponseTimeout => SendError::Late,
            other => SendError::Broken(self.component.to_owned(), format!("{other:?}")),
        }
    }

    /// Waits for the head of the answer.
    pub fn response(
        &self,
        pending: &Pending,
        until: Instant,
    ) -> Result<IncomingResponse, SendError> {
        let broken = || SendError::Broken(self.component.to_owned(), "no answer".to_owned());
        loop {
            match pending.0.get() {
                Some(Ok(Ok(response))) => return Ok(response),
                Some(Ok(Err(code))) => return Err(self.refused(&code)),
                Some(Err(())) => return Err(broken()),
                None => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if !clock::wait(&pending.0.subscribe(), left) {
                return Err(SendError::Late);
            }
        }
    }

    /// Waits for the answer.
    pub fn answer(&self, pending: &Pending, until: Instant) -> Result<Answer, SendError> {
        let response = self.response(pending, until)?;
        let broken = |what: &str| SendError::Broken(self.component.to_owned(), what.to_owned());
        let body = response.consume().map_err(|()| broken("no body"))?;
        let body = incoming::read(&body, ANSWER_MAX_BYTES, 0, until);
        Ok(Answer {
            status: response.status(),
            body: body.map_err(|error| match error {
                ReadError::Late => SendError::Late,
                ReadError::TooLong => broken("the answer is too long"),
                ReadError::Broken => broken("the answer ended early"),
            })?,
        })
    }
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), StreamError> {
    let stream = body.write();
    let stream = stream.map_err(|()| StreamError::Closed)?;
    for piece in bytes.chunks(4096) {
        stream.blocking_write_and_flush(piece)?;
    }
    Ok(())
}
