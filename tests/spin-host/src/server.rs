//! Serves requests: each in a fresh instance of the component that its path leads to.
//!
//! Invariant: as in Spin, an instance runs to its end, also when its client has gone, and
//! nothing stops one that never ends. A guest that traps before it has begun to answer is an
//! empty 500; one that traps later ends the body as if it were whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use wasmtime::Store;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use crate::bindings::Platform;
use crate::compiled::Compiled;
use crate::guest::Guest;
use crate::manifest::{Application, Component};
use crate::sqlite::Databases;

/// A served application.
pub(crate) struct Server {
    routes: routefinder::Router<String>,
    components: BTreeMap<String, Served>,
    databases: Databases,
}

struct Served {
    about: Arc<Component>,
    proxy: ProxyPre<Guest>,
}

impl Server {
    /// Compiles the components of an application.
    pub(crate) fn new(
        application: Application,
        state: &Path,
        compiled: &Compiled,
    ) -> anyhow::Result<Arc<Server>> {
        let mut linker = Linker::new(compiled.engine());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(as_anyhow)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).map_err(as_anyhow)?;
        Platform::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest).map_err(as_anyhow)?;
        let mut components = BTreeMap::new();
        for (name, about) in application.components {
            let load = || {
                let component = compiled.load(&about.source)?;
                let pre = linker.instantiate_pre(&component).map_err(as_anyhow)?;
                ProxyPre::new(pre).map_err(as_anyhow)
            };
            let proxy = load().with_context(|| format!("component `{name}`"))?;
            let about = Arc::new(about);
            components.insert(name, Served { about, proxy });
        }
        Ok(Arc::new(Server {
            routes: application.routes,
            components,
            databases: Databases::new(state),
        }))
    }

    /// Serves connections until the process ends.
    pub(crate) async fn serve(self: Arc<Server>, listener: TcpListener) -> std::io::Result<()> {
        loop {
            let (stream, client) = listener.accept().await?;
            let server = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| server.handle(request, client));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    eprintln!("a connection failed: {error}");
                }
            });
        }
    }

    async fn handle(
        self: &Arc<Server>,
        request: Request<Incoming>,
        client: SocketAddr,
    ) -> Result<Response<WasiBody>, std::convert::Infallible> {
        let path = request.uri().path().to_owned();
        if path == "/.well-known/spin/health" {
            return Ok(Response::new(whole("OK")));
        }
        let found = self.routes.best_match(&path);
        let Some(name) = found.map(|found| found.handler().clone()) else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let headers = request.headers_mut();
        headers.remove(http::header::CONNECTION);
        if let Ok(client) = client.to_string().parse() {
            headers.insert("spin-client-addr", client);
        }
        let response = self.call(&name, request).await;
        Ok(response.unwrap_or_else(|| empty(StatusCode::NOT_FOUND)))
    }

    /// Has a component answer; `None` when there is none of this name.
    pub(crate) async fn call(
        self: &Arc<Server>,
        name: &str,
        request: Request<WasiBody>,
    ) -> Option<Response<WasiBody>> {
        let served = self.components.get(name)?;
        let answered = self.run(served, request).await;
        Some(answered.unwrap_or_else(|error| {
            eprintln!("component `{name}` failed: {error:#}");
            empty(StatusCode::INTERNAL_SERVER_ERROR)
        }))
    }

    async fn run(
        self: &Arc<Server>,
        served: &Served,
        mut request: Request<WasiBody>,
    ) -> anyhow::Result<Response<WasiBody>> {
        let mut uri = request.uri().clone().into_parts();
        if uri.authority.is_none() {
            let host = request.headers().get(http::header::HOST);
            let host = host.map_or("localhost".as_bytes(), |host| host.as_bytes());
            uri.authority = Some(http::uri::Authority::try_from(host)?);
        }
        uri.scheme = Some(http::uri::Scheme::HTTP);
        *request.uri_mut() = http::Uri::from_parts(uri)?;
        let guest = Guest::new(
            served.about.clone(),
            self.databases.clone(),
            Arc::downgrade(self),
        );
        let mut store = Store::new(served.proxy.engine(), guest);
        let proxy = served.proxy.instantiate_async(&mut store).await;
        let proxy = proxy.map_err(as_anyhow)?;
        let (answer, answered) = tokio::sync::oneshot::channel();
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request);
        let request = request.map_err(as_anyhow)?;
        let out = store.data_mut().http().new_response_outparam(answer);
        let out = out.map_err(as_anyhow)?;
        let running = tokio::spawn(async move {
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut store, request, out).await
        });
        match answered.await {
            Ok(response) => {
                tokio::spawn(async move {
                    if let Ok(Err(error)) = running.await {
                        eprintln!("a component failed after it began to answer: {error:#}");
                    }
                });
                response.map_err(|code| anyhow::anyhow!("the guest answered with {code:?}"))
            }
            Err(_) => {
                running.await?.map_err(as_anyhow)?;
                anyhow::bail!("the guest ended without an answer")
            }
        }
    }
}

/// wasmtime's errors are not errors of the standard library.
pub(crate) fn as_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::from_boxed(error.into_boxed_dyn_error())
}

fn whole(text: &'static str) -> WasiBody {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    body.map_err(Into::into).boxed_unsync()
}

fn empty(status: StatusCode) -> Response<WasiBody> {
    let mut response = Response::new(Empty::new().map_err(Into::into).boxed_unsync());
    *response.status_mut() = status;
    response
}
