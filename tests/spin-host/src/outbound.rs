//! Requests that leave a component: to where the manifest allows, and to other components
//! of the application by the names `COMPONENT.spin.internal`, which never leave the process.

use std::sync::{Arc, Weak};

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::server::Server;

/// What the names of components end in.
const INTERNAL: &str = ".spin.internal";

/// The hosts of `allowed_outbound_hosts`: `SCHEME://HOST[:PORT]`, where each may be `*` and a
/// host may begin with `*.`.
#[derive(Default)]
pub(crate) struct Allowed(Vec<Entry>);

struct Entry {
    scheme: String,
    host: String,
    port: Option<Port>,
}

#[derive(PartialEq, Eq)]
enum Port {
    Any,
    Only(u16),
}

impl Allowed {
    pub(crate) fn parse(hosts: &[String]) -> anyhow::Result<Allowed> {
        let entries = hosts.iter().map(|text| {
            let (scheme, rest) = text
                .split_once("://")
                .with_context(|| format!("`{text}`: expected SCHEME://HOST"))?;
            let rest = rest.trim_end_matches('/');
            let (host, port) = match rest.rsplit_once(':') {
                Some((host, "*")) => (host, Some(Port::Any)),
                Some((host, port)) => match port.parse() {
                    Ok(port) => (host, Some(Port::Only(port))),
                    Err(_) => bail!("`{text}`: `{port}` is no port"),
                },
                None => (rest, None),
            };
            Ok(Entry {
                scheme: scheme.to_owned(),
                host: host.to_owned(),
                port,
            })
        });
        Ok(Allowed(entries.collect::<anyhow::Result<_>>()?))
    }

    fn allows(&self, uri: &http::Uri) -> bool {
        let scheme = uri.scheme_str().unwrap_or("https");
        let usual = if scheme == "https" { 443 } else { 80 };
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
        self.0.iter().any(|entry| {
            let host_fits = match entry.host.strip_prefix("*.") {
                Some(end) => host
                    .strip_suffix(end)
                    .is_some_and(|start| start.len() > 1 && start.ends_with('.')),
                None => entry.host == "*" || entry.host.eq_ignore_ascii_case(host),
            };
            let port_fits = match entry.port {
                Some(Port::Any) => true,
                Some(Port::Only(allowed)) => port.unwrap_or(usual) == allowed,
                None => entry.host == "*" || port.is_none_or(|port| port == usual),
            };
            host_fits && port_fits && (entry.scheme == "*" || entry.scheme == scheme)
        })
    }
}

/// One instance's way out.
pub(crate) struct Outbound {
    pub(crate) component: Arc<crate::manifest::Component>,
    pub(crate) server: Weak<Server>,
}

/// What keeps a response's connection going until its body is read.
type Connection = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Connection), Error>> + Send>
    {
        if !self.component.allowed.allows(request.uri()) {
            eprintln!(
                "refused a request to {}: not an allowed host",
                request.uri()
            );
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        let internal = request
            .uri()
            .host()
            .and_then(|host| host.strip_suffix(INTERNAL));
        let internal = internal
            .filter(|name| !name.contains('.'))
            .map(str::to_owned);
        let server = self.server.upgrade();
        Box::new(async move {
            let (Some(name), Some(server)) = (internal, server) else {
                let (response, io) =
                    wasmtime_wasi_http::default_send_request(request, options).await?;
                let response = response.map(BodyExt::boxed_unsync);
                return Ok((response, Box::new(io) as Connection));
            };
            // Spin takes it away before it looks for the component.
            request.headers_mut().remove(http::header::HOST);
            let Some(response) = server.call(&name, request).await else {
                // In Spin this traps whoever asks, before it could be told. A panic in the
                // task that it waits for ends it just so.
                panic!("unknown routing destination `{name}`");
            };
            Ok((response, Box::new(std::future::ready(Ok(()))) as Connection))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(hosts: &[&str], uri: &str) -> bool {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Allowed::parse(&hosts)
            .unwrap()
            .allows(&uri.parse().unwrap())
    }

    #[test]
    fn other_components_are_hosts_too() {
        let all = ["http://*.spin.internal"];
        assert!(allows(&all, "http://counter.spin.internal/actors"));
        assert!(!allows(&all, "http://spin.internal/"));
        assert!(!allows(&all, "https://counter.spin.internal/"));
        assert!(!allows(
            &["http://counter.spin.internal"],
            "http://chat.spin.internal/"
        ));
    }

    #[test]
    fn ports_are_those_of_the_scheme_unless_said() {
        assert!(allows(&["https://example.com"], "https://example.com/a"));
        assert!(!allows(
            &["https://example.com"],
            "https://example.com:8443/"
        ));
        assert!(allows(&["http://127.0.0.1:*"], "http://127.0.0.1:8080/"));
        assert!(allows(&["*://*:*"], "http://anything:1/"));
        assert!(!allows(&[], "http://anything/"));
    }
}
