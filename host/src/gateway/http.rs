//! The HTTP forms of the operations on actors.
//!
//! | request | answer |
//! |---|---|
//! | `POST /actors/{actor}/{id}/{method}` | 200 with the result, 204 without one |
//! | the same with `Accept: text/event-stream` | `event: result` or `event: error` |
//! | `GET /actors/{actor}/{id}/state` | `{"state", "epoch", "version"}` |
//! | the same with `Accept: text/event-stream` | `event: snapshot`, then `event: patch` … |
//! | `GET /actors/{actor}/{id}/events` | `event: event` … |
//!
//! Errors are `{"error": {code, message, params}}` with the failure's status. An HTTP
//! caller is no connection: no hook runs for it, events cannot be sent to it alone.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::value::RawValue;
use tidegate_core::failure::code;
use tidegate_core::{ActorKey, Failure};
use tokio::sync::oneshot;

use super::Doors;
use super::sse::{SseOutlet, SseStream};
use crate::actor::{Call, Stream, random_id};
use crate::fanout::sse;
use crate::rooms::Client;
use crate::turn::ReplyTo;

/// Longest `traceparent` that is passed on; version 00 of W3C Trace Context has 55 bytes.
const TRACEPARENT_MAX_BYTES: usize = 128;

/// A failure as a response.
pub(super) struct ErrorResponse(pub(super) Failure);

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, self.0.http_body())
    }
}

impl From<Failure> for ErrorResponse {
    fn from(failure: Failure) -> ErrorResponse {
        ErrorResponse(failure)
    }
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn event_stream<S>(stream: S) -> Response
where
    S: futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| {
        accept.to_str().is_ok_and(|accept| {
            let mut types = accept
                .split(',')
                .map(|media| media.split(';').next().unwrap_or("").trim());
            types.any(|media| media.eq_ignore_ascii_case("text/event-stream"))
        })
    })
}

fn failure(code: &'static str, message: impl Into<String>) -> Failure {
    Failure::host(code).message(message)
}

type Target = Result<Path<(String, String, String)>, PathRejection>;

/// The actor, and what comes behind its id in the path.
fn target(doors: &Doors, path: Target) -> Result<(ActorKey, String), Failure> {
    let Path((actor, id, what)) =
        path.map_err(|rejection| failure(code::REQUEST_MALFORMED, rejection.body_text()))?;
    Ok((doors.actors.key(&actor, &id)?, what))
}

pub(super) async fn health() -> Response {
    json(StatusCode::OK, r#"{"ok":true}"#)
}

pub(super) async fn not_found() -> ErrorResponse {
    failure(code::REQUEST_NOT_FOUND, "there is nothing at this path").into()
}

pub(super) async fn method_not_allowed() -> ErrorResponse {
    failure(
        code::REQUEST_METHOD_NOT_ALLOWED,
        "this path does not take this HTTP method",
    )
    .into()
}

/// `POST /actors/{actor}/{id}/{method}`
pub(super) async fn call(
    State(doors): State<Arc<Doors>>,
    path: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ErrorResponse> {
    let (key, method) = target(&doors, path)?;
    let patience = Duration::from_millis(doors.settings.body_timeout_ms);
    let input = tokio::time::timeout(patience, read_input(body, doors.settings.max_frame_bytes))
        .await
        .map_err(|_| failure(code::REQUEST_TIMEOUT, "the body did not arrive in time"))??;
    let (reply, result) = oneshot::channel();
    let traceparent = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .filter(|value| value.len() <= TRACEPARENT_MAX_BYTES);
    doors.actors.call(
        &key,
        Call {
            method,
            input,
            client: Client::default(),
            traceparent: traceparent.map(str::to_owned),
            reply: ReplyTo::waiter(reply),
        },
    );
    let result = async {
        result
            .await
            .unwrap_or_else(|_| Err(failure(code::INTERNAL, "the call was not answered")))
    };
    if wants_events(&headers) {
        let event = futures_util::stream::once(result).map(|result| {
            Ok(Bytes::from(match result {
                Ok(result) => sse("result", None, result.as_deref().unwrap_or("null")),
                Err(failure) => sse("error", None, &failure.http_body()),
            }))
        });
        return Ok(event_stream(event));
    }
    Ok(match result.await? {
        Some(result) => json(StatusCode::OK, result),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn read_input(body: Body, limit: usize) -> Result<Option<String>, Failure> {
    let bytes = axum::body::to_bytes(body, limit).await.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        match too_large {
            true => failure(
                code::REQUEST_TOO_LARGE,
                format!("the body is longer than {limit} bytes"),
            ),
            false => failure(code::REQUEST_MALFORMED, "the body ended early"),
        }
    })?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let malformed = |detail: String| {
        failure(
            code::REQUEST_MALFORMED,
            format!("the body is not JSON: {detail}"),
        )
    };
    let text = String::from_utf8(bytes.into()).map_err(|error| malformed(error.to_string()))?;
    serde_json::from_str::<&RawValue>(&text).map_err(|error| malformed(error.to_string()))?;
    Ok(Some(text))
}

/// `GET /actors/{actor}/{id}/state` and `…/events`
pub(super) async fn read(
    State(doors): State<Arc<Doors>>,
    path: Target,
    headers: HeaderMap,
) -> Result<Response, ErrorResponse> {
    let (key, what) = target(&doors, path)?;
    match what.as_str() {
        "state" if wants_events(&headers) => Ok(subscribe(&doors, key, Stream::State).await?),
        "state" => {
            let read = doors.actors.read(&key).await?;
            let (state, epoch, version) = (read.state, read.epoch, read.version);
            let body = format!(r#"{{"state":{state},"epoch":"{epoch}","version":{version}}}"#);
            Ok(json(StatusCode::OK, body))
        }
        "events" => Ok(subscribe(&doors, key, Stream::Events).await?),
        _ => Err(method_not_allowed().await),
    }
}

async fn subscribe(doors: &Arc<Doors>, key: ActorKey, stream: Stream) -> Result<Response, Failure> {
    let id: Arc<str> = format!("sse-{}", random_id(8)).into();
    let outlet = Arc::new(SseOutlet::new(id, doors.settings.outbound_bytes));
    // Made first, so that it undoes the subscription however this ends.
    let body = SseStream::new(
        outlet.clone(),
        doors.actors.clone(),
        key.clone(),
        stream,
        doors.stopped(),
    );
    doors.actors.subscribe(&key, stream, outlet).await?;
    Ok(event_stream(body))
}
