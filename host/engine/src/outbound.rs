//! HTTP requests that leave the host for a guest: `wasi:http/outgoing-handler`.
//!
//! `instance` gives each instance an [`Outbound`] and says when its calls begin and end;
//! all else comes from `wasmtime-wasi-http`, which asks here before it sends.
//!
//! Invariant: a request leaves only while a call into the guest runs, only to a host of the
//! component's list, and nothing of it stays open when that call has ended.
//!
//! The list is checked against the names that a guest writes. A listed *name* may resolve
//! to an address within the operator's network; who lists it vouches for it. A name that
//! only a wildcard covers may not. Redirects are
//! the guest's to follow, and so are new requests. Nobody waits in a thread: requests are
//! tasks, except that the system's resolver occupies one of tokio's blocking threads while
//! it looks a name up.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use tidegate_base::sync::Mutex;
use tidegate_core::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use wasmtime_wasi::ResourceTable;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
};

use super::allowed_hosts::{AllowedHosts, Target, Verdict, is_internal};
use super::config::Limits;
use super::imports::Pending;

/// Different hosts that a component is warned about.
const MAX_WARNED: usize = 256;
/// The longest authority that a warning repeats; a DNS name is shorter.
const MAX_SHOWN: usize = 300;
/// What one set of header fields may weigh in memory.
const FIELDS_BYTES: usize = 32 << 10;
/// What a guest may write at once of a request's body. The host holds two such pieces.
const BODY_PIECE_BYTES: usize = 16 << 10;
/// Handles of WASI resources (streams, requests, header fields) that one instance may have.
pub(super) const MAX_RESOURCES: usize = 2_048;

/// Waits until everything that a guest builds on is safe, so that something may leave.
pub type WayOut = Arc<dyn Fn() -> Pending<Result<(), Failure>> + Send + Sync>;

/// Lets HTTP requests out of a call that builds on what may be lost yet.
pub trait Outgoing: Send {
    /// What HTTP requests of the guest wait for.
    fn way_out(&mut self) -> WayOut;
}

/// What holds for all instances of a component.
pub(super) struct Policy {
    component: Arc<str>,
    allowed: AllowedHosts,
    limits: Arc<Limits>,
    /// The hosts that were refused and warned about.
    warned: Mutex<HashSet<String>>,
}

impl Policy {
    pub(super) fn new(component: Arc<str>, allowed: AllowedHosts, limits: Arc<Limits>) -> Policy {
        Policy {
            component,
            allowed,
            limits,
            warned: Mutex::default(),
        }
    }

    /// Says once per host that a request was refused, so that the reason of a failure can
    /// be found and a guest cannot fill the log.
    fn warn(&self, host: String) {
        let mut warned = self.warned.lock();
        if warned.len() < MAX_WARNED && !warned.contains(&host) {
            tracing::warn!(
                component = &*self.component,
                host,
                "refused a request: the host is not in the component's allowed_outbound_hosts"
            );
            warned.insert(host);
        }
    }
}

/// One instance's way out.
pub(super) struct Outbound {
    http: WasiHttpCtx,
    gate: Gate,
}

/// Who decides about each request.
struct Gate {
    policy: Arc<Policy>,
    /// Present while a call into the guest runs.
    call: Option<Call>,
}

/// A call into the guest.
struct Call {
    /// What requests wait for, if they wait.
    way_out: Option<WayOut>,
    /// Present once it has sent a request.
    requests: Option<Requests>,
}

/// What the requests of one call share.
struct Requests {
    slots: Arc<Semaphore>,
    ended: CancellationToken,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Outbound {
    pub(super) fn new(policy: Arc<Policy>) -> Outbound {
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_BYTES);
        let gate = Gate { policy, call: None };
        Outbound { http, gate }
    }

    /// Lets requests out until the call ends, each behind the way out if there is one.
    pub(super) fn begin_call(&mut self, way_out: Option<WayOut>) {
        self.gate.call = Some(Call {
            way_out,
            requests: None,
        });
    }

    /// Cuts off what the call has left open.
    pub(super) fn end_call(&mut self) {
        self.gate.call = None;
    }

    /// What the implementation of `wasi:http` works with.
    pub(super) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView {
            hooks: &mut self.gate,
            table,
            ctx: &mut self.http,
        }
    }
}

impl Gate {
    /// Decides about a request, and makes it one to the very place that was checked.
    fn admit(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Exchange, Error> {
        let call = self.call.as_mut().ok_or(Error::HttpRequestDenied)?;
        let mut uri = request.uri().clone().into_parts();
        let (scheme, authority) = match (&uri.scheme, &uri.authority) {
            (Some(scheme), Some(authority)) => (scheme.as_str(), authority.as_str()),
            _ => return Err(Error::HttpRequestUriInvalid),
        };
        let Some(target) = Target::parse(scheme, authority) else {
            let shown = authority.chars().take(MAX_SHOWN).collect();
            self.policy.warn(shown);
            return Err(Error::HttpRequestDenied);
        };
        let external = match self.policy.allowed.decide(&target) {
            Verdict::Allowed => None,
            Verdict::IfExternal => Some((target.clone(), self.policy.clone())),
            Verdict::Refused => {
                self.policy.warn(target.to_string());
                return Err(Error::HttpRequestDenied);
            }
        };
        let limit = self.policy.limits.outbound_requests;
        let requests = call.requests.get_or_insert_with(|| Requests {
            slots: Arc::new(Semaphore::new(limit)),
            ended: CancellationToken::new(),
        });
        let slot = requests.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| Error::ConnectionLimitReached)?;
        let authority = target.authority().parse();
        uri.authority = Some(authority.map_err(|_| Error::HttpRequestUriInvalid)?);
        *request.uri_mut() =
            http::Uri::from_parts(uri).map_err(|_| Error::HttpRequestUriInvalid)?;
        let (ended, way_out) = (requests.ended.clone(), call.way_out.clone());
        Ok(Exchange {
            request,
            external,
            options: self.bounded(options.unwrap_or_default()),
            slot,
            ended,
            way_out,
        })
    }

    /// The guest's timeouts within those of the component.
    fn bounded(&self, asked: RequestOptions) -> RequestOptions {
        let limits = &self.policy.limits;
        let within = |asked: Option<Duration>, limit_ms: u64| {
            let limit = Duration::from_millis(limit_ms);
            Some(asked.map_or(limit, |asked| asked.min(limit)))
        };
        RequestOptions {
            connect_timeout: within(asked.connect_timeout, limits.outbound_connect_timeout_ms),
            first_byte_timeout: within(
                asked.first_byte_timeout,
                limits.outbound_first_byte_timeout_ms,
            ),
            // The call's deadline bounds the rest.
            between_bytes_timeout: asked.between_bytes_timeout,
        }
    }
}

/// A request that may leave.
struct Exchange {
    request: http::Request<WasiBody>,
    /// The place, if it must not lie within the host's own network.
    external: Option<(Target, Arc<Policy>)>,
    options: RequestOptions,
    slot: OwnedSemaphorePermit,
    ended: CancellationToken,
    way_out: Option<WayOut>,
}

/// What keeps a response's connection going until its body is read.
type Connection = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl Exchange {
    /// Sends the request and waits for the head of the response.
    async fn run(self) -> Result<(http::Response<WasiBody>, Connection), Error> {
        let Exchange {
            mut request,
            external,
            options,
            slot,
            ended,
            way_out,
        } = self;
        // What the turn builds on may be lost until then.
        if let Some(way_out) = way_out
            && way_out().await.is_err()
        {
            return Err(Error::HttpRequestDenied);
        }
        // The TLS handshake has no timeout of its own.
        let whole = [options.connect_timeout, options.first_byte_timeout];
        let whole = whole.into_iter().flatten().sum();
        let sent = async {
            if let Some((target, policy)) = external {
                keep_outside(&mut request, &target, &policy).await?;
            }
            wasmtime_wasi_http::default_send_request(request, Some(options)).await
        };
        let (response, connection) = tokio::select! {
            () = ended.cancelled() => return Err(Error::ConnectionTerminated),
            sent = tokio::time::timeout(whole, sent) => {
                sent.map_err(|_| Error::ConnectionTimeout)??
            }
        };
        let connection = async move {
            // In flight until the connection closes.
            let _slot = slot;
            tokio::select! {
                () = ended.cancelled() => {}
                result = connection => if let Err(error) = result {
                    // The guest is told by the body.
                    tracing::debug!(%error, "a connection of an outbound request failed");
                }
            }
            Ok(())
        };
        Ok((response.map(BodyExt::boxed_unsync), Box::new(connection)))
    }
}

/// Refuses a place whose name leads into the host's own network. What is looked up here is
/// what is connected to: without TLS, whose certificates tell the peer by its name, the
/// request goes to the address itself, since the name may lead elsewhere a moment later.
async fn keep_outside(
    request: &mut http::Request<WasiBody>,
    target: &Target,
    policy: &Policy,
) -> Result<(), Error> {
    let found = tokio::net::lookup_host(target.authority()).await;
    let addresses: Vec<SocketAddr> = found.map_err(Error::Connect)?.collect();
    if addresses.iter().any(|address| is_internal(address.ip())) {
        policy.warn(target.to_string());
        return Err(Error::HttpRequestDenied);
    }
    // One that most networks reach.
    let address = addresses.iter().find(|address| address.is_ipv4());
    let Some(address) = address.or(addresses.first()) else {
        return Err(Error::HttpRequestUriInvalid);
    };
    if !target.is_authenticated() {
        let mut uri = request.uri().clone().into_parts();
        let authority = address.to_string().parse();
        uri.authority = Some(authority.map_err(|_| Error::HttpRequestUriInvalid)?);
        *request.uri_mut() =
            http::Uri::from_parts(uri).map_err(|_| Error::HttpRequestUriInvalid)?;
    }
    Ok(())
}

impl WasiHttpHooks for Gate {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Connection), Error>> + Send>
    {
        match self.admit(request, options) {
            Ok(exchange) => Box::new(exchange.run()),
            Err(error) => Box::new(std::future::ready(Err(error))),
        }
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_PIECE_BYTES
    }

    // A peer's faults are the guest's to report; the host's log does not repeat them.

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        match error {
            error if error.is_timeout() => ErrorCode::HttpResponseTimeout,
            error if error.is_incomplete_message() => ErrorCode::HttpResponseIncomplete,
            error if error.is_closed() || error.is_canceled() => ErrorCode::ConnectionTerminated,
            _ => ErrorCode::HttpProtocolError,
        }
    }

    fn p2_error_from_connect(&mut self, _: &std::io::Error) -> ErrorCode {
        ErrorCode::ConnectionRefused
    }

    fn p2_error_from_tls(&mut self, _: &std::io::Error) -> ErrorCode {
        ErrorCode::TlsProtocolError
    }
}
