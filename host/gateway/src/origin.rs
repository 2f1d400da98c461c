//! Who may talk to the host from where: the Host header and the Origin header.
//!
//! A page of some other site can make a browser send requests here. Its origin gives it
//! away, unless its own host name has been pointed at this address (DNS rebinding): then
//! the Host header does. Pure; the gateway asks before any route.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Request, Version};
use tidegate_core::Failure;
use tidegate_core::http::{Authority, default_port, web_origin};

/// The host that a proxy's own client has named; its own `Host` may be another.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What is allowed.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    hosts: Vec<String>,
    origins: Vec<String>,
    /// Pages served from loopback may connect: whoever serves them is on this machine.
    loopback_pages: bool,
}

impl Policy {
    pub(super) fn new(hosts: &[String], origins: &[String], listens_on: IpAddr) -> Policy {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let hosts: Vec<String> = lower(hosts);
        let without_dot = |host: String| match host.strip_suffix('.') {
            Some(host) => host.to_owned(),
            None => host,
        };
        Policy {
            hosts: hosts.into_iter().map(without_dot).collect(),
            origins: lower(origins),
            loopback_pages: listens_on.is_loopback(),
        }
    }

    /// Checks a request. Returns its origin if it has one.
    ///
    /// Behind a proxy that is trusted, `X-Forwarded-Host` says what pages call this host, and
    /// no port says nothing of the port: many proxies cut it off.
    pub(super) fn check<'r, B>(
        &self,
        request: &'r Request<B>,
        is_behind_proxy: bool,
    ) -> Result<Option<&'r str>, Failure> {
        let headers = request.headers();
        let named = self.named(request)?;
        let forwarded =
            match last_of(headers, &FORWARDED_HOST).filter(|_| is_behind_proxy) {
                None => None,
                Some(host) => Some(Authority::parse(host).ok_or_else(|| {
                    malformed(format!("X-Forwarded-Host: `{host}` is not a host"))
                })?),
            };
        for host in named.iter().chain(&forwarded) {
            if !self.allows_host(host) {
                return Err(Failure::request_forbidden_host(&host.host));
            }
        }
        let forbidden = |message| Failure::request_forbidden_origin(message);
        if !headers.contains_key(ORIGIN) {
            // A page of another site may send a plain GET without saying so (W3C Fetch
            // Metadata); following a link is something else.
            let says = |name, value| headers.get(name).is_some_and(|found| found == value);
            if says("sec-fetch-site", "cross-site") && !says("sec-fetch-mode", "navigate") {
                let message = "pages of other sites may not send requests";
                return Err(forbidden(message.to_owned()));
            }
            return Ok(None);
        }
        let own = forwarded.or(named);
        match single(headers, &ORIGIN) {
            Some(origin) if self.allows_origin(origin, own.as_ref(), is_behind_proxy) => {
                Ok(Some(origin))
            }
            origin => Err(forbidden(format!(
                "pages of `{}` may not connect: add the origin to gateway.origins, or have the \
                 proxy pass `Host` on with its port",
                origin.unwrap_or("?")
            ))),
        }
    }

    /// The host that a request names (RFC 9112, section 3.2); none only of a client that is
    /// older than `Host`, which no browser is.
    fn named<B>(&self, request: &Request<B>) -> Result<Option<Authority>, Failure> {
        let headers = request.headers();
        let host = match single(headers, &HOST) {
            Some(host) => Some(
                Authority::parse(host)
                    .ok_or_else(|| malformed(format!("Host: `{host}` is not a host")))?,
            ),
            None if request.version() < Version::HTTP_11 && !headers.contains_key(HOST) => None,
            None => return Err(malformed("expected one Host header".to_owned())),
        };
        // What an absolute target names goes before the header.
        match request.uri().authority() {
            None => Ok(host),
            Some(target) => Authority::parse(target.as_str())
                .map(Some)
                .ok_or_else(|| malformed(format!("`{target}` is not a host"))),
        }
    }

    fn allows_host(&self, authority: &Authority) -> bool {
        is_loopback_name(&authority.host)
            || authority.ip().is_some()
            || self
                .hosts
                .iter()
                .any(|allowed| allowed == "*" || *allowed == authority.host)
    }

    fn allows_origin(&self, origin: &str, own: Option<&Authority>, is_behind_proxy: bool) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self
            .origins
            .iter()
            .any(|allowed| *allowed == "*" || *allowed == origin)
        {
            return true;
        }
        let Some((scheme, page)) = web_origin(&origin) else {
            return false;
        };
        let default = default_port(scheme);
        let is_same_port = |own: &Authority| match own.port {
            None if is_behind_proxy => true,
            port => port.unwrap_or(default) == page.port.unwrap_or(default),
        };
        let is_own = own.is_some_and(|own| own.host == page.host && is_same_port(own));
        let is_loopback =
            is_loopback_name(&page.host) || page.ip().is_some_and(|ip| ip.is_loopback());
        is_own || (self.loopback_pages && is_loopback)
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    match values.next() {
        None => value.to_str().ok(),
        Some(_) => None,
    }
}

/// The last element of a header that is a list: what the nearest proxy says.
fn last_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let last = headers.get_all(name).iter().next_back()?;
    let last = last.to_str().unwrap_or("?");
    Some(last.rsplit(',').next().unwrap_or(last).trim())
}

/// RFC 6761 keeps these names for loopback.
fn is_loopback_name(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

fn malformed(message: String) -> Failure {
    Failure::request_malformed(message)
}

#[cfg(test)]
mod tests {
    use tidegate_core::failure::code;

    use super::*;

    fn policy(hosts: &[&str], origins: &[&str], listen: &str) -> Policy {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        Policy::new(&owned(hosts), &owned(origins), listen.parse().unwrap())
    }

    fn request(version: Version, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn check(policy: &Policy, host: &str, origin: Option<&str>) -> Result<(), String> {
        let mut headers = vec![("host", host)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let request = request(Version::HTTP_11, "/", &headers);
        outcome(policy, &request, false)
    }

    fn outcome(policy: &Policy, request: &Request<()>, proxied: bool) -> Result<(), String> {
        let checked = policy.check(request, proxied).map(|_| ());
        checked.map_err(|failure| failure.code.into_owned())
    }

    #[test]
    fn loopback_names_and_addresses_are_answered() {
        let policy = policy(&[], &[], "127.0.0.1");
        for host in [
            "localhost:3000",
            "localhost.",
            "127.0.0.1:3000",
            "[::1]:3000",
            "app.localhost",
            "10.1.2.3",
        ] {
            assert_eq!(check(&policy, host, None), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_foreign_name_is_refused_until_it_is_configured() {
        let refused = Err(code::REQUEST_FORBIDDEN_HOST.to_owned());
        let none = policy(&[], &[], "127.0.0.1");
        assert_eq!(check(&none, "evil.example", None), refused);
        let all = policy(&["*"], &[], "127.0.0.1");
        assert_eq!(check(&all, "any.example", None), Ok(()));
        for configured in ["live.example", "Live.example."] {
            let policy = policy(&[configured], &[], "127.0.0.1");
            for host in ["Live.Example:80", "live.example.", "LIVE.example.:80"] {
                assert_eq!(check(&policy, host, None), Ok(()), "{configured} {host}");
            }
            assert_eq!(check(&policy, "live.example.evil.example", None), refused);
        }
    }

    #[test]
    fn a_host_that_is_missing_given_twice_or_none_is_malformed() {
        let policy = policy(&["*"], &[], "127.0.0.1");
        let malformed = Err(code::REQUEST_MALFORMED.to_owned());
        for headers in [
            &[][..],
            &[("host", "localhost"), ("host", "evil.example")],
            &[("host", "localhost"), ("host", "localhost")],
            &[("host", "")],
            &[("host", "a b")],
            &[("host", "user@localhost")],
        ] {
            let request = request(Version::HTTP_11, "/", headers);
            assert_eq!(outcome(&policy, &request, false), malformed, "{headers:?}");
        }
    }

    #[test]
    fn a_client_older_than_the_header_may_leave_it_out() {
        let policy = policy(&[], &[], "127.0.0.1");
        let old = |headers| outcome(&policy, &request(Version::HTTP_10, "/", headers), false);
        assert_eq!(old(&[]), Ok(()));
        let refused = Err(code::REQUEST_FORBIDDEN_HOST.to_owned());
        assert_eq!(old(&[("host", "evil.example")]), refused);
        let malformed = Err(code::REQUEST_MALFORMED.to_owned());
        assert_eq!(
            old(&[("host", "localhost"), ("host", "localhost")]),
            malformed
        );
        let refused = Err(code::REQUEST_FORBIDDEN_ORIGIN.to_owned());
        assert_eq!(old(&[("origin", "http://evil.example")]), refused);
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let policy = policy(&[], &[], "127.0.0.1");
        let with = |target| {
            let headers = [("host", "localhost"), ("origin", "http://127.0.0.1:3000")];
            outcome(&policy, &request(Version::HTTP_11, target, &headers), false)
        };
        assert_eq!(with("http://127.0.0.1:3000/health"), Ok(()));
        let refused = Err(code::REQUEST_FORBIDDEN_HOST.to_owned());
        assert_eq!(with("http://evil.example/health"), refused);
        let malformed = Err(code::REQUEST_MALFORMED.to_owned());
        assert_eq!(with("http://user@localhost/health"), malformed);
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let refused = Err(code::REQUEST_FORBIDDEN_ORIGIN.to_owned());
        let local = policy(&[], &["https://app.example"], "127.0.0.1");
        for origin in [
            "https://evil.example",
            "null",
            "https://app.example:444",
            "file://x",
        ] {
            assert_eq!(
                check(&local, "localhost:3000", Some(origin)),
                refused,
                "{origin}"
            );
        }
        assert_eq!(
            check(&local, "localhost:3000", Some("https://app.example")),
            Ok(())
        );
    }

    #[test]
    fn own_pages_may_connect_and_loopback_pages_while_the_host_is_local() {
        let local = policy(&[], &[], "127.0.0.1");
        assert_eq!(
            check(&local, "127.0.0.1:3000", Some("http://localhost:5173")),
            Ok(())
        );
        let public = policy(&["live.example"], &[], "0.0.0.0");
        for (host, origin) in [
            ("live.example", "http://live.example"),
            ("live.example", "https://live.example:443"),
            ("live.example.", "https://live.example."),
            ("live.example:8080", "http://live.example:8080"),
        ] {
            assert_eq!(
                check(&public, host, Some(origin)),
                Ok(()),
                "{host} {origin}"
            );
        }
        assert!(check(&public, "live.example", Some("http://localhost:5173")).is_err());
        assert!(check(&public, "live.example", Some("http://live.example:8080")).is_err());
    }

    #[test]
    fn behind_a_proxy_the_port_may_be_cut_off_and_the_host_forwarded() {
        let public = policy(&["live.example"], &[], "0.0.0.0");
        let page = |host, forwarded: &[&str], origin, proxied| {
            let mut headers = vec![("host", host), ("origin", origin)];
            headers.extend(forwarded.iter().map(|host| ("x-forwarded-host", *host)));
            outcome(&public, &request(Version::HTTP_11, "/", &headers), proxied)
        };
        let cut = ("live.example", "http://live.example:8080");
        assert_eq!(page(cut.0, &[], cut.1, true), Ok(()));
        let other_origin = Err(code::REQUEST_FORBIDDEN_ORIGIN.to_owned());
        assert_eq!(page(cut.0, &[], cut.1, false), other_origin);
        assert_eq!(
            page(cut.0, &[], "http://evil.example:8080", true),
            other_origin
        );

        let own = "https://live.example:8443";
        for forwarded in [&["live.example:8443"][..], &["evil.example, live.example"]] {
            assert_eq!(page("10.0.0.1:3000", forwarded, own, true), Ok(()));
            assert_eq!(page("10.0.0.1:3000", forwarded, own, false), other_origin);
        }
        let named = &["live.example:9"];
        assert_eq!(page("10.0.0.1", named, own, true), other_origin);
        let other_host = Err(code::REQUEST_FORBIDDEN_HOST.to_owned());
        assert_eq!(page("10.0.0.1", &["evil.example"], own, true), other_host);
        assert_eq!(
            page("evil.example", &["live.example"], own, true),
            other_host
        );
        let malformed = Err(code::REQUEST_MALFORMED.to_owned());
        assert_eq!(page("10.0.0.1", &["a b"], own, true), malformed);
    }
}
