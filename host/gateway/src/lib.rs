//! The doors of a host: one TCP listener that speaks HTTP and, on every path that no
//! other route owns, WebSocket.
//!
//! `host` starts and stops it. Each TCP connection is one task; an upgraded one goes on
//! as another. Both are counted, bounded and waited for.
//!
//! Invariant: whatever arrives, it is answered or refused; nothing that a client sends
//! ends the accept loop.

mod accept;
mod admin;
mod answer;
mod body;
mod caller;
pub mod config;
mod connection;
mod cors;
mod descriptors;
mod http;
pub mod metrics;
mod origin;
mod page;
mod relief;
mod reserved;
mod rules;
mod socket;
mod sse;
mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::http::header::{ALLOW, HeaderValue};
use ::http::{HeaderMap, Request, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::upgrade::OnUpgrade;
use tidegate_actor::Actors;
use tidegate_actor::metrics::Stages;
use tidegate_auth::limits::{AddressLimits, AddressPermit, CallLimits};
use tidegate_auth::{AdminKey, ClientAddress, Tokens};
use tidegate_base::budget::Budgets;
use tidegate_base::clock::Steps;
use tidegate_base::metrics::Registry;
use tidegate_base::rate::RateLimit;
use tidegate_core::Failure;
use tidegate_core::place::Incarnation;
use tidegate_delivery::connections::{Connection, Connections};
use tidegate_engine::{Engine, Grants};
use tidegate_registry::versions::Kept;
use tidegate_ws::{self as ws, CloseCode, handshake};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::accept::Accepting;
use self::caller::{Arrival, REQUEST_ID, TokenFrom};
use self::http::ErrorResponse;
use self::metrics::Metrics;
use self::reserved::{Reserved, ReservedPlace};
use self::wire::Wire;

/// What all who serve a request share.
pub(crate) struct Shared {
    pub(crate) settings: config::Gateway,
    socket_settings: Arc<ws::Settings>,
    pub(crate) actors: Arc<Actors>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) metrics: Arc<Metrics>,
    /// What is counted of what is sent.
    pub(crate) sent: Arc<tidegate_delivery::metrics::Metrics>,
    /// Where the time of calls goes.
    pub(crate) stages: Arc<Stages>,
    /// What the host counts, for operators.
    pub(crate) page: Arc<Registry>,
    /// What the host may hold for clients.
    pub(crate) budgets: Budgets,
    /// Verifies tokens; without it everybody is anonymous.
    pub(crate) tokens: Option<Tokens>,
    allow_anonymous: bool,
    /// When the clock is set that tokens expire by.
    pub(crate) steps: Steps,
    pub(crate) calls: CallLimits,
    addresses: AddressLimits,
    client_addresses: ClientAddress,
    pub(crate) admin: admin::Admin,
    /// True once the host's end has begun: it still serves, and wants nothing new.
    ending: AtomicBool,
    /// True once the host stops.
    stopping: watch::Sender<bool>,
    policy: origin::Policy,
    tasks: TaskTracker,
    /// One permit for each socket that may be open.
    sockets: Arc<Semaphore>,
    /// Places for probes and operators beyond these.
    reserved: Reserved,
    /// How many are told why they are refused.
    refusal_answers: RateLimit,
    /// Event streams that are open, and responses that are being read.
    receivers: relief::Receivers,
    /// When the log was last told of an address that has too many connections, in seconds since
    /// the doors were opened.
    crowd_told: AtomicU64,
    opened: Instant,
    /// Tells the connections of this run of the host from those of other runs.
    incarnation: Incarnation,
    next_connection: AtomicU64,
}

impl Shared {
    fn next_connection_id(&self) -> Arc<str> {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        format!("c{number:x}-{}", self.incarnation).into()
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Whether it takes work.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ending.load(Ordering::Relaxed)
    }

    fn say_goodbye(&self, connection: &Connection) {
        let reason = "the host is shutting down";
        connection.outbound().close(CloseCode::GOING_AWAY, reason);
    }

    /// Completes once the host stops.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error would mean that the doors are gone, which comes to the same.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    /// A place for a client that comes through a trusted proxy and stays.
    pub(crate) fn admit_behind_proxy(
        &self,
        peer: IpAddr,
        client: IpAddr,
    ) -> Result<Option<AddressPermit>, Failure> {
        match self.client_addresses.trusts(peer) {
            true => self.addresses.admit(client).map(Some),
            false => Ok(None),
        }
    }
}

/// What the configuration says of WebSockets.
fn socket_settings(settings: &config::Gateway, budgets: &Budgets) -> ws::Settings {
    let mut socket = ws::Settings {
        budgets: budgets.clone(),
        message_timeout: Duration::from_millis(settings.message_timeout_ms),
        ..ws::Settings::default()
    };
    socket.incoming.max_message = settings.max_frame_bytes;
    socket.incoming.max_discard = settings.max_discard_bytes;
    socket.outbound.max_bytes = settings.outbound_bytes;
    socket.outbound.max_frames = settings.outbound_frames;
    socket.keep_alive.ping_interval = Duration::from_millis(settings.ping_interval_ms);
    socket.keep_alive.pong_timeout = Duration::from_millis(settings.pong_timeout_ms);
    socket.close_timeout = Duration::from_millis(settings.close_timeout_ms);
    socket
}

/// What the gateway leads to.
pub struct Services {
    /// The actors.
    pub actors: Arc<Actors>,
    /// Which run of a host this is.
    pub incarnation: Incarnation,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// Loads what is uploaded.
    pub engine: Engine,
    /// What an uploaded component is granted that is not in the application manifest.
    pub grants: Grants,
    /// Where components are kept; none when nothing outlasts the process.
    pub kept: Option<Arc<Kept>>,
    /// A folder for files that are checked before they are used.
    pub scratch: PathBuf,
    /// Longest record of the store, in bytes.
    pub max_record_bytes: usize,
    /// What is counted at the doors.
    pub metrics: Arc<Metrics>,
    /// What is counted of what is sent.
    pub sent: Arc<tidegate_delivery::metrics::Metrics>,
    /// Where the time of calls goes.
    pub stages: Arc<Stages>,
    /// What the host counts, for operators.
    pub page: Arc<Registry>,
    /// What the host may hold for clients.
    pub budgets: Budgets,
}

/// Who is let in.
pub struct Keys {
    /// Verifies tokens; without it everybody is anonymous.
    pub tokens: Option<Tokens>,
    /// Whether clients without a token are let in all the same.
    pub allow_anonymous: bool,
    /// The operators' key.
    pub admin: AdminKey,
    /// Limits of what operators do.
    pub admin_settings: config::Admin,
    /// Whose word on a client's address counts.
    pub client_addresses: ClientAddress,
}

/// The open doors of a running host.
pub struct Gateway {
    shared: Arc<Shared>,
    /// None once it has ended.
    accepting: Option<Accepting>,
    /// Makes room when clients are owed too much; ends with this.
    relieving: tokio::task::JoinHandle<()>,
    address: SocketAddr,
}

impl Gateway {
    /// Listens and begins to accept.
    pub async fn open(
        settings: config::Gateway,
        services: Services,
        keys: Keys,
    ) -> io::Result<Gateway> {
        let Services {
            actors,
            incarnation,
            connections,
            engine,
            grants,
            kept,
            scratch,
            max_record_bytes,
            metrics,
            sent,
            stages,
            page,
            budgets,
        } = services;
        let listener = accept::listen(settings.listen, settings.accept_backlog)?;
        let address = listener.local_addr()?;
        let sockets =
            descriptors::for_sockets(settings.max_connections, settings.reserved_descriptors);
        // Where there are few descriptors, what is left of them is for the store above all.
        let reserved = match sockets < settings.max_connections {
            true => settings.reserved_connections.min(sockets / 8),
            false => settings.reserved_connections,
        };
        let shared = Arc::new(Shared {
            policy: origin::Policy::new(&settings.hosts, &settings.origins, address.ip()),
            sockets: Arc::new(Semaphore::new(sockets.min(Semaphore::MAX_PERMITS))),
            reserved: Reserved::new(reserved),
            refusal_answers: RateLimit::new(
                settings.refusal_answers_per_second,
                settings.refusal_answers_per_second,
            ),
            receivers: relief::Receivers::default(),
            crowd_told: AtomicU64::new(u64::MAX),
            opened: Instant::now(),
            calls: CallLimits::new(settings.calls_per_second, settings.calls_burst),
            addresses: AddressLimits::new(settings.max_connections_per_address),
            client_addresses: keys.client_addresses,
            tokens: keys.tokens,
            allow_anonymous: keys.allow_anonymous,
            steps: Steps::watch(),
            admin: admin::Admin::new(
                keys.admin,
                keys.admin_settings,
                engine,
                grants,
                kept,
                scratch,
                max_record_bytes,
            ),
            socket_settings: Arc::new(socket_settings(&settings, &budgets)),
            settings,
            actors,
            connections,
            metrics,
            sent,
            stages,
            page,
            budgets,
            ending: AtomicBool::new(false),
            stopping: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            incarnation,
            next_connection: AtomicU64::new(1),
        });
        let accepting = Accepting::begin(listener, routes(shared.clone()), shared.clone())?;
        let relieving = tokio::spawn(relief::relieve(Arc::downgrade(&shared)));
        Ok(Gateway {
            shared,
            accepting: Some(accepting),
            relieving,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no further socket, and says on those that are open that it is not ready.
    pub fn stop_accepting(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            accepting.end();
        }
    }

    /// Closes every socket with 1001, ends every stream, and waits for them.
    pub async fn close(&self) {
        self.shared.stopping.send_replace(true);
        for connection in self.shared.connections.all() {
            self.shared.say_goodbye(&connection);
        }
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// One of the sockets that may be open; free again when the last clone is dropped. It
/// travels with each request, so that an upgraded socket keeps it.
#[derive(Clone)]
struct Place(#[expect(dead_code, reason = "held, never read")] Arc<OpenSocket>);

struct OpenSocket {
    _kind: Kind,
    metrics: Arc<Metrics>,
}

#[expect(dead_code, reason = "held, never read")]
enum Kind {
    Common {
        socket: OwnedSemaphorePermit,
        /// None behind a trusted proxy, whose sockets carry many clients.
        address: Option<AddressPermit>,
    },
    Reserved(ReservedPlace),
}

impl Place {
    fn new(kind: Kind, shared: &Shared) -> Place {
        shared.metrics.sockets.inc();
        Place(Arc::new(OpenSocket {
            _kind: kind,
            metrics: shared.metrics.clone(),
        }))
    }

    fn reserved(place: ReservedPlace, shared: &Shared) -> Place {
        Place::new(Kind::Reserved(place), shared)
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.metrics.sockets.dec();
    }
}

/// Finds a place for a socket, or says why there is none.
fn admit(peer: IpAddr, shared: &Shared) -> Result<Place, Failure> {
    let socket = shared
        .sockets
        .clone()
        .try_acquire_owned()
        .map_err(|_| Failure::connection_limit())?;
    let address = match shared.client_addresses.trusts(peer) {
        true => None,
        false => {
            let address = shared.addresses.admit(peer);
            Some(address.inspect_err(|_| shared.tell_of_crowd(peer))?)
        }
    };
    Ok(Place::new(Kind::Common { socket, address }, shared))
}

/// How often the log is told of an address that has as many connections as it may.
const CROWD_TOLD_EVERY: Duration = Duration::from_secs(60);

impl Shared {
    /// Says that it may be a proxy's address that has so many connections.
    fn tell_of_crowd(&self, peer: IpAddr) {
        let now = self.opened.elapsed().as_secs();
        let told = self.crowd_told.load(Ordering::Relaxed);
        let is_due = told == u64::MAX || now - told.min(now) >= CROWD_TOLD_EVERY.as_secs();
        let (relaxed, cell) = (Ordering::Relaxed, &self.crowd_told);
        if is_due && cell.compare_exchange(told, now, relaxed, relaxed).is_ok() {
            warn!(
                address = %peer,
                limit = self.settings.max_connections_per_address,
                "an address has as many connections as it may, further ones are refused: if it is \
                 a reverse proxy's, name it in gateway.trusted-proxies, so that clients count by \
                 the addresses that it forwards"
            );
        }
    }
}

/// Where a request's socket leads.
#[derive(Clone, Copy)]
struct Peer(IpAddr);

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/health", get(http::health))
        .route("/ready", get(http::ready))
        .nest("/_tidegate", admin::routes(shared.clone()))
        .route("/_tidegate/", admin::root(shared.clone()))
        .route(
            "/actors/{actor}/{id}/{what}",
            get(http::read)
                .post(http::call)
                .fallback(http::actor_method_not_allowed),
        )
        .merge(page::routes(&shared.settings))
        .method_not_allowed_fallback(http::method_not_allowed)
        .fallback(upgrade)
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Checks Host and Origin before anything else, and answers for cross-origin requests
/// (WHATWG Fetch, section 3.3).
async fn guard(
    State(shared): State<Arc<Shared>>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.expect("`serve` notes it for every request").0;
    let arrival = shared.arrival(peer, request.headers());
    let id = HeaderValue::from_str(&arrival.id);
    debug!(
        request = %arrival.id,
        client = %arrival.address,
        method = %request.method(),
        path = request.uri().path(),
        "a request arrives"
    );
    request.extensions_mut().insert(arrival);
    let mut response = admit_origin(&shared, request, next, peer).await;
    if let Ok(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    shared.metrics.requests.inc();
    if let Some(http::Refused(failure)) = response.extensions().get() {
        http::count_refusal(failure, &shared.metrics);
    }
    response
}

async fn admit_origin(
    shared: &Shared,
    request: Request<Body>,
    next: Next,
    peer: IpAddr,
) -> Response {
    if let Err(failure) = rules::check(&request) {
        return refusal_by_rule(failure);
    }
    let is_behind_proxy = shared.client_addresses.trusts(peer);
    let origin = match shared.policy.check(&request, is_behind_proxy) {
        Ok(origin) => origin.and_then(|origin| HeaderValue::from_str(origin).ok()),
        Err(failure) => return ErrorResponse(failure).into_response(),
    };
    let mut response = match origin.is_some() && cors::is_preflight(&request) {
        true => cors::preflight(),
        // The host as a whole (RFC 9110, section 9.3.7).
        false if request.uri().path() == "*" => {
            let allow = HeaderValue::from_static(rules::METHODS);
            (StatusCode::NO_CONTENT, [(ALLOW, allow)]).into_response()
        }
        false => next.run(request).await,
    };
    if let Some(origin) = origin {
        cors::allow(origin, response.headers_mut());
    }
    response
}

fn refusal_by_rule(failure: Failure) -> Response {
    let status = failure.status;
    let mut response = ErrorResponse(failure).into_response();
    let headers = response.headers_mut();
    match status {
        405 => drop(headers.insert(ALLOW, HeaderValue::from_static(rules::METHODS))),
        415 => {
            let identity = HeaderValue::from_static("identity");
            headers.insert(::http::header::ACCEPT_ENCODING, identity);
        }
        _ => {}
    }
    response
}

/// Any other path: a WebSocket, or nothing.
async fn upgrade(State(shared): State<Arc<Shared>>, mut request: Request<Body>) -> Response {
    let (Some(&Peer(peer)), Some(arrival)) = (
        request.extensions().get::<Peer>(),
        request.extensions().get::<Arrival>().cloned(),
    ) else {
        return ErrorResponse(Failure::host_failed()).into_response();
    };
    let headers: &HeaderMap = request.headers();
    if !handshake::is_upgrade(headers) {
        return http::not_found().await.into_response();
    }
    let accepted = match handshake::accept(request.method(), request.version(), headers) {
        Ok(accepted) => accepted,
        Err(error) => {
            let failure = match error.status() {
                StatusCode::METHOD_NOT_ALLOWED => Failure::request_method_not_allowed,
                StatusCode::UPGRADE_REQUIRED => Failure::request_upgrade_required,
                _ => Failure::request_malformed,
            };
            let failure = failure(&error);
            let mut response = ErrorResponse(failure).into_response();
            response.headers_mut().extend(error.headers());
            return response;
        }
    };
    if shared.is_stopping() {
        let failure = Failure::host_shutting_down();
        return ErrorResponse(failure).into_response();
    }
    let query = request.uri().query();
    let dialect = http::dialect(query);
    let caller = shared.identify(headers, query, TokenFrom::Upgrade);
    let caller = match caller {
        Ok(caller) => caller,
        Err(failure) => return ErrorResponse(failure).into_response(),
    };
    let address = arrival.address;
    let behind_proxy = match shared.admit_behind_proxy(peer, address) {
        Ok(permit) => permit,
        Err(failure) => return ErrorResponse(failure).into_response(),
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        let failure = Failure::internal("this connection cannot be upgraded");
        return ErrorResponse(failure).into_response();
    };
    let place = request.extensions_mut().remove::<Place>();
    let task = {
        let shared = shared.clone();
        async move {
            let place = (place, behind_proxy);
            let upgraded = match upgrade.await {
                Ok(upgraded) => upgraded,
                Err(error) => return debug!(%error, "an upgrade was given up"),
            };
            let settings = shared.socket_settings.clone();
            let socket = Wire::of_upgraded(upgraded)
                .ok_or(ws::UpgradeError::NotTcp)
                .and_then(|(stream, read)| {
                    ws::Socket::new(stream, read, settings).map_err(ws::UpgradeError::Gone)
                });
            let socket = match socket {
                Ok(socket) => socket,
                Err(error) => return debug!(%error, "an upgrade failed"),
            };
            // A task of its own, which keeps nothing of how it came about.
            let tasks = shared.tasks.clone();
            tasks.spawn(socket::serve(
                socket, caller, dialect, address, shared, place,
            ));
        }
    };
    shared.tasks.spawn(task);
    accepted.response()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop_accepting();
        self.relieving.abort();
        info!(address = %self.address, "closed");
    }
}
