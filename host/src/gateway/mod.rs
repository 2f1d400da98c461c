//! The doors of a host: one TCP listener that speaks HTTP and, on every path that no
//! other route owns, WebSocket.
//!
//! `host` starts and stops it. Each TCP connection is one task; an upgraded one goes on
//! as another. Both are counted, bounded and waited for.
//!
//! Invariant: whatever arrives, it is answered or refused; nothing that a client sends
//! ends the accept loop.

mod http;
mod origin;
mod socket;
mod sse;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::header::{self, HeaderValue};
use ::http::{HeaderMap, Method, Request, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidegate_core::Failure;
use tidegate_core::failure::code;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::http::ErrorResponse;
use crate::actor::{Actors, random_id};
use crate::config;
use crate::rooms::{Connection, Connections};
use crate::ws::{self, CloseCode, handshake};

/// What the doors lead to.
pub(crate) struct Doors {
    pub(super) settings: config::Gateway,
    pub(super) actors: Arc<Actors>,
    pub(super) connections: Arc<Connections>,
    /// True once the host stops.
    stopping: watch::Sender<bool>,
    policy: origin::Policy,
    tasks: TaskTracker,
    /// One permit for each socket that may be open.
    sockets: Arc<Semaphore>,
    /// Tells the connections of this run of the host from those of other runs.
    run_id: String,
    next_connection: AtomicU64,
}

impl Doors {
    fn next_connection_id(&self) -> Arc<str> {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        format!("c{number:x}-{}", self.run_id).into()
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn say_goodbye(&self, connection: &Connection) {
        let reason = "the host is shutting down";
        connection.outbound().close(CloseCode::GOING_AWAY, reason);
    }

    /// Completes once the host stops.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error would mean that the doors are gone, which comes to the same.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    fn socket_settings(&self) -> ws::Settings {
        let settings = &self.settings;
        let mut socket = ws::Settings::default();
        socket.incoming.max_message = settings.max_frame_bytes;
        socket.incoming.max_discard = settings.max_discard_bytes;
        socket.outbound.max_bytes = settings.outbound_bytes;
        socket.outbound.max_frames = settings.outbound_frames;
        socket.keep_alive.ping_interval = Duration::from_millis(settings.ping_interval_ms);
        socket.keep_alive.pong_timeout = Duration::from_millis(settings.pong_timeout_ms);
        socket.close_timeout = Duration::from_millis(settings.close_timeout_ms);
        socket
    }
}

/// The open doors of a running host.
pub struct Gateway {
    doors: Arc<Doors>,
    accepting: tokio::task::JoinHandle<()>,
    address: SocketAddr,
}

impl Gateway {
    /// Listens and begins to accept.
    pub async fn open(
        settings: config::Gateway,
        actors: Arc<Actors>,
        connections: Arc<Connections>,
    ) -> io::Result<Gateway> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let doors = Arc::new(Doors {
            policy: origin::Policy::new(&settings.hosts, &settings.origins, address.ip()),
            sockets: Arc::new(Semaphore::new(
                settings.max_connections.min(Semaphore::MAX_PERMITS),
            )),
            settings,
            actors,
            connections,
            stopping: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            run_id: random_id(4),
            next_connection: AtomicU64::new(1),
        });
        let accepting = tokio::spawn(accept(listener, doors.clone()));
        Ok(Gateway {
            doors,
            accepting,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no further socket.
    pub async fn stop_accepting(&mut self) {
        self.accepting.abort();
        // Waits for the listener to be closed; the error only says that it was aborted.
        let _ = (&mut self.accepting).await;
    }

    /// Closes every socket with 1001, ends every stream, and waits for them.
    pub async fn close(&self) {
        self.doors.stopping.send_replace(true);
        for connection in self.doors.connections.all() {
            self.doors.say_goodbye(&connection);
        }
        self.doors.tasks.close();
        self.doors.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, doors: Arc<Doors>) {
    let routes = routes(doors.clone());
    // A descriptor held back. When there is no other left, giving it up makes room to take
    // one connection from the backlog; if it cannot be had back then, that one is refused.
    let mut reserve = open_reserve();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                reserve = reserve.or_else(open_reserve);
                if reserve.is_none() {
                    refuse(stream, peer, "out of file descriptors");
                    reserve = open_reserve();
                    continue;
                }
                match doors.sockets.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let place = Place(Arc::new(permit));
                        doors
                            .tasks
                            .spawn(serve(stream, place, routes.clone(), doors.clone()));
                    }
                    Err(_) => refuse(stream, peer, "gateway.max-connections is reached"),
                }
            }
            Err(error) if is_out_of_descriptors(&error) => {
                if reserve.take().is_none() {
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            // The peer gave up while it was in the backlog.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn open_reserve() -> Option<std::fs::File> {
    std::fs::File::open("/dev/null").ok()
}

/// One of the sockets that may be open; free again when the last clone is dropped. It
/// travels with each request, so that an upgraded socket keeps it.
#[derive(Clone)]
struct Place(#[expect(dead_code, reason = "held, never read")] Arc<OwnedSemaphorePermit>);

fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// Says 503 as far as that goes without waiting, and closes.
fn refuse(stream: TcpStream, peer: SocketAddr, why: &str) {
    warn!(%peer, why, "a connection is refused");
    let failure =
        Failure::host(code::CONNECTION_LIMIT).message("the host has too many connections");
    let body = failure.http_body();
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(response.as_bytes());
}

fn routes(doors: Arc<Doors>) -> Router {
    Router::new()
        .route("/health", get(http::health))
        .route(
            "/actors/{actor}/{id}/{what}",
            get(http::read).post(http::call),
        )
        .method_not_allowed_fallback(http::method_not_allowed)
        .fallback(upgrade)
        .layer(middleware::from_fn_with_state(doors.clone(), guard))
        .with_state(doors)
}

/// Checks Host and Origin before anything else, and answers for cross-origin requests
/// (WHATWG Fetch, section 3.3).
async fn guard(State(doors): State<Arc<Doors>>, request: Request<Body>, next: Next) -> Response {
    let origin = match doors.policy.check(request.headers()) {
        Ok(origin) => origin.and_then(|origin| HeaderValue::from_str(origin).ok()),
        Err(failure) => return ErrorResponse(failure).into_response(),
    };
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match preflight && origin.is_some() {
        true => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            let headers = response.headers_mut();
            let allow = |text| HeaderValue::from_static(text);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, allow("GET, POST"));
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                allow("authorization, content-type, last-event-id, traceparent"),
            );
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, allow("600"));
            response
        }
        false => next.run(request).await,
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// Any other path: a WebSocket, or nothing.
async fn upgrade(State(doors): State<Arc<Doors>>, mut request: Request<Body>) -> Response {
    let headers: &HeaderMap = request.headers();
    if !handshake::is_upgrade(headers) {
        return http::not_found().await.into_response();
    }
    let accepted = match handshake::accept(request.method(), request.version(), headers) {
        Ok(accepted) => accepted,
        Err(error) => {
            let failure = Failure::host(code::REQUEST_MALFORMED)
                .message(error.to_string())
                .status(error.status().as_u16());
            let mut response = ErrorResponse(failure).into_response();
            response.headers_mut().extend(error.headers());
            return response;
        }
    };
    if doors.is_stopping() {
        let failure = Failure::host(code::HOST_SHUTTING_DOWN);
        return ErrorResponse(failure).into_response();
    }
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        let failure = Failure::host(code::INTERNAL).message("this connection cannot be upgraded");
        return ErrorResponse(failure).into_response();
    };
    let place = request.extensions_mut().remove::<Place>();
    let task = {
        let doors = doors.clone();
        async move {
            let _place = place;
            let upgraded = match upgrade.await {
                Ok(upgraded) => upgraded,
                Err(error) => return debug!(%error, "an upgrade was given up"),
            };
            match ws::Socket::from_upgraded(upgraded, doors.socket_settings()) {
                Ok(socket) => socket::serve(socket, doors).await,
                Err(error) => debug!(%error, "an upgrade failed"),
            }
        }
    };
    doors.tasks.spawn(task);
    accepted.response()
}

/// Serves HTTP on one connection until it ends, is upgraded, or the host stops.
async fn serve(stream: TcpStream, place: Place, routes: Router, doors: Arc<Doors>) {
    let _ = stream.set_nodelay(true);
    // RFC 5482; Linux counts the time in which the peer's window stays shut as well.
    let patience = Duration::from_millis(doors.settings.write_timeout_ms);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(patience));
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        routes.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(doors.settings.header_timeout_ms))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = doors.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection ended");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
        info!(address = %self.address, "closed");
    }
}
