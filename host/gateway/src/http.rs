//! The HTTP forms of the operations on actors.
//!
//! | request | answer |
//! |---|---|
//! | `POST /actors/{actor}/{id}/{method}` | 200 with the result, 204 without one |
//! | the same with `Accept: text/event-stream` | `event: chunk` …, then `event: result` or `event: error` |
//! | `GET /actors/{actor}/{id}/state` | `{"state", "epoch", "version"}` |
//! | the same with `Accept: text/event-stream` | `event: snapshot`, then `event: patch` … |
//! | `GET /actors/{actor}/{id}/events` | `event: event` … |
//! | `GET /health`, `GET /ready` | 200; `ready` answers 503 once the host stops |
//!
//! Errors are `{"error": {code, message, params}}` with the failure's status. An HTTP
//! caller is no connection: no hook runs for it, events cannot be sent to it alone.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::body::Body as _;
use serde_json::value::RawValue;
use tidegate_actor::metrics::Stopwatch;
use tidegate_actor::turn::{Listener, ReplyTo};
use tidegate_actor::{Call, FirstContact, Stream, random_id};
use tidegate_auth::Identity;
use tidegate_auth::limits::AddressPermit;
use tidegate_base::budget::{Budget, Exhausted, Share};
use tidegate_base::rate::RetryAfter;
use tidegate_core::http::{self as http_rules, Events, accepted_events, is_read_as_json};
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, CallEnvelope, Failure, Origin, RequestId};
use tidegate_delivery::{Dialect, sse};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::answer::EVENT_STREAM;
use super::caller::{Arrival, Caller, TokenFrom};
use super::metrics::{Kind, Metrics};
use super::relief::{Cut, Receiver};
use super::sse::{SseOutlet, SseStream};
use super::{Peer, Shared, body};

/// Longest `traceparent` that is passed on; version 00 of W3C Trace Context has 55 bytes.
const TRACEPARENT_MAX_BYTES: usize = 128;

/// A failure as a response.
pub(super) struct ErrorResponse(pub(super) Failure);

/// A failure that a response tells of.
#[derive(Clone)]
pub(super) struct Refused(pub(super) Failure);

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, self.0.http_body());
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_after(&self.0)));
            }
            _ => {}
        }
        response.extensions_mut().insert(Refused(self.0));
        response
    }
}

/// In how many seconds it is worth trying again (RFC 9110, section 10.2.3).
fn retry_after(failure: &Failure) -> u64 {
    let params = failure.params.as_ref();
    let ms = params.and_then(|params| params.get("retryAfterMs")?.as_u64());
    ms.unwrap_or(1).div_ceil(1000).max(1)
}

/// Counts a failure that the host itself made.
pub(super) fn count_refusal(failure: &Failure, metrics: &Metrics) {
    if let Cow::Borrowed(code) = failure.code {
        metrics.refuse(code);
    }
}

impl From<Failure> for ErrorResponse {
    fn from(failure: Failure) -> ErrorResponse {
        ErrorResponse(failure)
    }
}

pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn event_stream<S>(stream: S) -> Response
where
    S: futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a request's `Accept` says of a stream of events.
pub(super) fn events_wanted(headers: &HeaderMap) -> Events {
    let lines = headers.get_all(ACCEPT).iter();
    accepted_events(lines.filter_map(|line| line.to_str().ok()))
}

pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    events_wanted(headers) == Events::Preferred
}

/// Refuses a body that is not said to be JSON, before it is asked for.
pub(super) fn check_content_type(headers: &HeaderMap, body: &Body) -> Result<(), Failure> {
    let is_json = |kind: &HeaderValue| kind.to_str().is_ok_and(is_read_as_json);
    match headers.get_all(CONTENT_TYPE).iter().all(is_json) || body.is_end_stream() {
        true => Ok(()),
        false => Err(Failure::request_unsupported_media(
            "Content-Type: expected application/json in UTF-8",
        )),
    }
}

type Target = Result<Path<(String, String, String)>, PathRejection>;

/// The actor, and what comes behind its id in the path.
fn target(shared: &Shared, path: Target) -> Result<(ActorKey, String), Failure> {
    let Path((actor, id, what)) =
        path.map_err(|rejection| Failure::request_malformed(rejection.body_text()))?;
    Ok((shared.actors.key(&actor, &id)?, what))
}

pub(super) async fn health() -> Response {
    json(StatusCode::OK, r#"{"ok":true}"#)
}

/// Whether the host takes work: it does once it listens, until it stops or its store does.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Result<Response, ErrorResponse> {
    if let Some(reason) = shared.actors.store_failed() {
        let failure = Failure::store_stopped();
        return Err(failure.detail(reason).into());
    }
    match shared.is_ready() {
        true => Ok(json(StatusCode::OK, r#"{"ready":true}"#)),
        false => Err(Failure::host_shutting_down().into()),
    }
}

pub(super) async fn not_found() -> ErrorResponse {
    Failure::request_not_found().into()
}

/// A method that a path does not take; the router says in `Allow` which it does.
pub(super) async fn method_not_allowed(method: Method) -> Response {
    match method {
        // RFC 9110, section 9.3.7.
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => ErrorResponse(Failure::path_method_not_allowed()).into_response(),
    }
}

/// Refuses a method below an actor, where the last part of the path decides.
pub(super) async fn actor_method_not_allowed(path: Target, method: Method) -> Response {
    let is_read = path.is_ok_and(|Path((_, _, what))| is_read(&what));
    refuse_method(is_read, method).await
}

async fn refuse_method(is_read: bool, method: Method) -> Response {
    let allow = HeaderValue::from_static(match is_read {
        true => "GET,HEAD,POST,OPTIONS",
        false => "POST,OPTIONS",
    });
    let mut response = method_not_allowed(method).await;
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// Whether this, behind an actor's id, is something to read; whatever else is a method.
fn is_read(what: &str) -> bool {
    matches!(what, "state" | "events")
}

/// `POST /actors/{actor}/{id}/{method}`
pub(super) async fn call(
    State(shared): State<Arc<Shared>>,
    path: Target,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(cut): Extension<Cut>,
    arrival: Arrival,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ErrorResponse> {
    let arrived = Instant::now();
    let caller = shared.identify(&headers, None, TokenFrom::Header)?;
    shared.check_calls(caller.identity.as_deref(), arrival.address)?;
    let (key, method) = target(&shared, path)?;
    let idempotency_key = idempotency_key(&headers)?;
    check_content_type(&headers, &body)?;
    let place = shared.admit_behind_proxy(peer, arrival.address)?;
    let patience = Duration::from_millis(shared.settings.body_timeout_ms);
    let budgets = &shared.budgets;
    let reading = read_input(body, shared.settings.max_frame_bytes, &budgets.inputs);
    let (input, share) = tokio::time::timeout(patience, reading)
        .await
        .map_err(|_| Failure::request_timeout("the body"))??;
    let input = match input.len() > LONG_INPUT {
        true => shared.actors.aside(&key, || json_of(input)).await?,
        false => json_of(input),
    }?;
    let (answer, result) = oneshot::channel();
    let is_stream = wants_events(&headers);
    let (reply, chunks) = match is_stream {
        true => {
            let (chunks, heard) = Listener::new(budgets.outbound.clone());
            (ReplyTo::listener(answer, chunks), Some(heard))
        }
        false => (ReplyTo::waiter(answer), None),
    };
    // A request that is dropped cancels its call.
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    let traceparent =
        single(&headers, "traceparent").filter(|value| value.len() <= TRACEPARENT_MAX_BYTES);
    shared.actors.call(
        &key,
        Call {
            envelope: CallEnvelope {
                key: idempotency_key,
                traceparent: traceparent.map(str::to_owned),
                request: Some(RequestId::Http(arrival.id)),
                ..CallEnvelope::new(method, input, Origin::Client(caller.client()))
            },
            deadline: None,
            share,
            cancel,
            arrived,
            watch: Stopwatch::default(),
            reply,
        },
    );
    let result = async move {
        let result = result.await;
        drop(guard);
        result.unwrap_or_else(|_| Err(Failure::unanswered()))
    };
    if let Some(chunks) = chunks {
        // The channel ends with the turn, and the result comes behind it.
        let chunks = futures_util::stream::unfold(chunks, async |mut chunks| {
            let chunk = chunks.recv().await?;
            Some((sse("chunk", None, &chunk.text), chunks))
        });
        let last = futures_util::stream::once(result).map(move |result| {
            let result = result.and_then(|result| {
                let result = sse("result", None, result.as_deref().unwrap_or("null"));
                result_of(&shared, result, &cut)
            });
            let error = |failure: Failure| Bytes::from(sse("error", None, &failure.http_body()));
            // The place is held until here.
            let _ = &place;
            result.unwrap_or_else(error)
        });
        let events = chunks.map(Bytes::from).chain(last).map(Ok);
        return Ok(event_stream(events.boxed()));
    }
    Ok(match result.await? {
        Some(result) => json(StatusCode::OK, result_of(&shared, result, &cut)?),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// The result of a call that has run.
fn result_of(shared: &Shared, result: String, cut: &Cut) -> Result<Bytes, Failure> {
    shared.owed(result, cut).map_err(|exhausted| {
        let message = format!("the call has run, and there is no room for its result: {exhausted}");
        exhausted.failure().message(message)
    })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let lines = headers.get_all("idempotency-key").iter();
    http_rules::idempotency_key(lines.map(|line| line.to_str().ok()))
}

/// A header that is there once.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?.to_str().ok()?;
    lines.next().is_none().then_some(line)
}

/// Refuses a body that says itself that it is too long, before its client is told to send it
/// (RFC 9110, section 10.1.1).
pub(super) fn check_length(body: &Body, limit: u64) -> Result<(), Failure> {
    match body.size_hint().lower() > limit {
        true => Err(Failure::request_too_large(limit)),
        false => Ok(()),
    }
}

/// The longest input that is looked at where it arrives, in bytes.
const LONG_INPUT: usize = 128 << 10;

/// The body of a call, and what it has taken of the budget, if it is not small.
pub(super) async fn read_input(
    body: Body,
    limit: usize,
    budget: &Arc<Budget>,
) -> Result<(Vec<u8>, Option<Share>), Failure> {
    check_length(&body, limit as u64)?;
    body::read_within(body, limit, budget).await
}

/// What a body says; nothing where there is none.
pub(super) fn json_of(bytes: Vec<u8>) -> Result<Option<String>, Failure> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let malformed = |detail: String| Failure::body_not_json(detail);
    let text = String::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
    serde_json::from_str::<&RawValue>(&text).map_err(|error| malformed(error.to_string()))?;
    Ok(Some(text))
}

/// `GET /actors/{actor}/{id}/state` and `…/events`
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    path: Target,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(cut): Extension<Cut>,
    arrival: Arrival,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ErrorResponse> {
    let asked_for = path.as_ref().map(|Path((_, _, what))| what.as_str());
    let events = events_wanted(&headers);
    let is_stream = events == Events::Preferred || asked_for.is_ok_and(|what| what == "events");
    // A browser's EventSource cannot set headers.
    let from = match is_stream {
        true => TokenFrom::HeaderOrQuery,
        false => TokenFrom::Header,
    };
    let caller = shared.identify(&headers, query.as_deref(), from)?;
    shared.check_calls(caller.identity.as_deref(), arrival.address)?;
    let (key, what) = target(&shared, path)?;
    if !is_read(&what) {
        return Ok(refuse_method(false, Method::GET).await);
    }
    if is_stream && events == Events::Refused {
        return Err(Failure::request_not_acceptable().into());
    }
    let place = match is_stream {
        true => shared.admit_behind_proxy(peer, arrival.address)?,
        false => None,
    };
    match what.as_str() {
        "state" if is_stream => {
            let outlet = stream_outlet(&shared, &caller, dialect(query.as_deref()));
            let since = last_event(&headers);
            let since = since.as_ref();
            Ok(subscribe(&shared, key, Stream::State, outlet, since, &caller, place).await?)
        }
        "state" => {
            let read = shared.actors.read(&key, caller.client()).await?;
            let end = format!(r#","epoch":"{}","version":{}}}"#, read.epoch, read.version);
            // The document is doors by all who are reading it, however slowly; but who still
            // reads an old version may be the last to hold it.
            let state = shared.owed(read.state, &cut).map_err(Exhausted::failure)?;
            let parts = [Bytes::from_static(br#"{"state":"#), state, Bytes::from(end)];
            let length: usize = parts.iter().map(Bytes::len).sum();
            let parts = futures_util::stream::iter(parts.map(Ok::<_, Infallible>));
            let mut response = json(StatusCode::OK, Body::from_stream(parts));
            let headers = response.headers_mut();
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Ok(response)
        }
        _events => {
            let outlet = stream_outlet(&shared, &caller, Dialect::Plain);
            Ok(subscribe(&shared, key, Stream::Events, outlet, None, &caller, place).await?)
        }
    }
}

/// What the receiver understands in patches: `patch=str_ins` in the query says more than
/// the plain ones.
pub(super) fn dialect(query: Option<&str>) -> Dialect {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    match pairs.any(|(name, value)| name == "patch" && value == "str_ins") {
        true => Dialect::StrIns,
        false => Dialect::Plain,
    }
}

/// What a client that comes back has seen: the id of its last event (WHATWG HTML, section
/// 9.2), which is `epoch:version`.
fn last_event(headers: &HeaderMap) -> Option<Since> {
    let (epoch, version) = single(headers, "last-event-id")?.split_once(':')?;
    Some(Since {
        epoch: epoch.to_owned(),
        version: version.parse().ok()?,
    })
}

fn stream_outlet(shared: &Shared, caller: &Caller, dialect: Dialect) -> Arc<SseOutlet> {
    let id: Arc<str> = format!("sse-{}", random_id(8)).into();
    let limits = shared.socket_settings.outbound;
    let budget = shared.budgets.outbound.clone();
    let outlet = SseOutlet::new(id, caller.user(), dialect, limits, budget);
    Arc::new(outlet)
}

async fn subscribe(
    shared: &Arc<Shared>,
    key: ActorKey,
    stream: Stream,
    outlet: Arc<SseOutlet>,
    since: Option<&Since>,
    caller: &Caller,
    place: Option<AddressPermit>,
) -> Result<Response, Failure> {
    let stopped = shared.stopped();
    let (refused_from_ms, steps) = (caller.refused_from_ms(), shared.steps.clone());
    let ended = async move {
        tokio::select! {
            () = stopped => None,
            () = Caller::expired(refused_from_ms, steps) => {
                Some(Failure::auth_expired())
            }
        }
    };
    let receiver: Arc<dyn Receiver> = outlet.clone();
    let listed = shared.receivers.list(Arc::downgrade(&receiver));
    drop(receiver);
    let held = (shared.metrics.connected(Kind::Sse), place, listed);
    // Made first, so that it undoes the subscription however this ends.
    let body = SseStream::new(
        outlet.clone(),
        shared.actors.clone(),
        key.clone(),
        stream,
        ended,
        refused_from_ms,
        held,
    );
    // A stream is no connection, of which the actor would be told.
    let mut contact = FirstContact::Past;
    let subscribed = shared
        .actors
        .subscribe(&key, stream, outlet, since, &mut contact);
    subscribed.await?;
    Ok(event_stream(body))
}

impl Shared {
    /// Counts a call, a subscription or a read of this user, or of this address; refuses one
    /// too many.
    pub(super) fn check_calls(
        &self,
        identity: Option<&Identity>,
        address: IpAddr,
    ) -> Result<(), Failure> {
        let subject = identity.and_then(|identity| identity.subject.as_deref());
        self.calls
            .check(subject, address)
            .map_err(RetryAfter::calls)
    }
}
