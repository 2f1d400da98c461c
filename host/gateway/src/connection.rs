//! One TCP connection that speaks HTTP, until it ends, is upgraded, or the host stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, StatusCode};
use axum::Router;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use tidegate_core::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::debug;

use super::answer::Answer;
use super::body::ReadOver;
use super::relief::Cut;
use super::wire::{Conversation, Ends, Patience, Wire};
use super::{Peer, Place, Shared};

/// Serves HTTP on one connection. `once` serves a single request, whose head may take so long.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    routes: Router,
    shared: Arc<Shared>,
    once: Option<Duration>,
) {
    let settings = &shared.settings;
    let _ = stream.set_nodelay(true);
    // RFC 5482; Linux counts the time in which the peer's window stays shut as well.
    let patience = Duration::from_millis(settings.write_timeout_ms);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(patience));
    let conversation = Conversation::new();
    let patience = Patience {
        head: once.unwrap_or(Duration::from_millis(settings.header_timeout_ms)),
        rest: Duration::from_millis(settings.keep_alive_timeout_ms),
        half_closed: Duration::from_millis(settings.half_closed_timeout_ms),
    };
    let wire = Wire::new(stream, conversation.clone(), patience, head_too_late);
    let routes = TowerToHyperService::new(routes);
    let services = shared.clone();
    let over = conversation.clone();
    let _ends = Ends(conversation.clone());
    let cut = Cut::default();
    let cuts = cut.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        conversation.asked(request.version());
        let (parts, body) = request.into_parts();
        let body = ReadOver::new(body, &parts.headers, services.clone(), conversation.clone());
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(place.clone());
        request.extensions_mut().insert(Peer(peer.ip()));
        request.extensions_mut().insert(cuts.clone());
        let response = routes.call(request);
        let conversation = conversation.clone();
        async move {
            let response = response.await?;
            Ok::<_, std::convert::Infallible>(Answer::begin(response, conversation))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        // The wire keeps time, since hyper has one limit for heads and rest.
        .header_read_timeout(None)
        .half_close(true)
        .keep_alive(once.is_none())
        .max_buf_size(settings.max_head_bytes)
        .max_header_size(settings.max_head_bytes)
        .serve_connection(wire, service)
        .with_upgrades();
    let ended = {
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = cut.told() => return debug!(%peer, "a connection that reads too slowly is cut"),
            () = shared.stopped() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection ended");
    }
    if let Some(stream) = over.take_given_up() {
        // Rare, and no reason to have room for it in every connection.
        Box::pin(read_over(stream, &shared)).await;
    }
}

/// Reads over what a client still sends that has been answered for the last time, within
/// limits.
async fn read_over(mut stream: TcpStream, shared: &Shared) {
    let reading = async {
        stream.shutdown().await?;
        let mut rest = (&mut stream).take(shared.settings.max_discard_bytes);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let patience = Duration::from_millis(shared.settings.close_timeout_ms);
    tokio::select! {
        _read_or_late = tokio::time::timeout(patience, reading) => {}
        () = shared.stopped() => {}
    }
}

/// What a client is told whose request's head did not arrive in time.
fn head_too_late() -> Bytes {
    let failure = Failure::request_timeout("the head of the request");
    last_answer(&failure, "")
}

/// An answer that is written without hyper, the last on its connection; `more` are further
/// headers, each with its line's end.
pub(super) fn last_answer(failure: &Failure, more: &str) -> Bytes {
    let body = failure.http_body();
    let status = StatusCode::from_u16(failure.status).unwrap_or_default();
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
         date: {date}\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    )
    .into()
}
