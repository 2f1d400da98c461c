//! Who may talk to the host from where: the Host header and the Origin header.
//!
//! A page of some other site can make a browser send requests here. Its origin gives it
//! away, unless its own host name has been pointed at this address (DNS rebinding): then
//! the Host header does. Pure; the gateway asks before it does anything else.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use tidegate_core::Failure;
use tidegate_core::failure::code;

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
        Policy {
            hosts: lower(hosts),
            origins: lower(origins),
            loopback_pages: listens_on.is_loopback(),
        }
    }

    /// Checks a request. Returns its origin if it has one.
    pub(super) fn check<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Failure> {
        let host = single(headers, &HOST).ok_or_else(|| {
            refusal(
                code::REQUEST_FORBIDDEN_HOST,
                "expected one Host header".to_owned(),
            )
        })?;
        let authority: Authority = host.parse().map_err(|_| {
            refusal(
                code::REQUEST_FORBIDDEN_HOST,
                format!("`{host}` is not a host"),
            )
        })?;
        if !self.allows_host(authority.host()) {
            return Err(refusal(
                code::REQUEST_FORBIDDEN_HOST,
                format!(
                    "this host does not answer to `{}`: add it to gateway.hosts",
                    authority.host()
                ),
            ));
        }
        if !headers.contains_key(ORIGIN) {
            // A page of another site may send a plain GET without saying so (W3C Fetch
            // Metadata); following a link is something else.
            let says = |name, value| headers.get(name).is_some_and(|found| found == value);
            if says("sec-fetch-site", "cross-site") && !says("sec-fetch-mode", "navigate") {
                let message = "pages of other sites may not send requests";
                return Err(refusal(code::REQUEST_FORBIDDEN_ORIGIN, message.to_owned()));
            }
            return Ok(None);
        }
        match single(headers, &ORIGIN) {
            Some(origin) if self.allows_origin(origin, &authority) => Ok(Some(origin)),
            origin => Err(refusal(
                code::REQUEST_FORBIDDEN_ORIGIN,
                format!(
                    "pages of `{}` may not connect: add the origin to gateway.origins",
                    origin.unwrap_or("?")
                ),
            )),
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        is_loopback_name(host)
            || ip_of(host).is_some()
            || self
                .hosts
                .iter()
                .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(host))
    }

    fn allows_origin(&self, origin: &str, own: &Authority) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self
            .origins
            .iter()
            .any(|allowed| *allowed == "*" || *allowed == origin)
        {
            return true;
        }
        let Some((scheme @ ("http" | "https"), rest)) = origin.split_once("://") else {
            return false;
        };
        let Ok(page) = rest.parse::<Authority>() else {
            return false;
        };
        let port = |authority: &Authority| {
            authority
                .port_u16()
                .unwrap_or(if scheme == "https" { 443 } else { 80 })
        };
        let same_origin = page.host().eq_ignore_ascii_case(own.host()) && port(&page) == port(own);
        let is_loopback =
            is_loopback_name(page.host()) || ip_of(page.host()).is_some_and(|ip| ip.is_loopback());
        same_origin || (self.loopback_pages && is_loopback)
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    match values.next() {
        None => value.to_str().ok(),
        Some(_) => None,
    }
}

/// RFC 6761 keeps these names for loopback.
fn is_loopback_name(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

fn ip_of(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

fn refusal(code: &'static str, message: String) -> Failure {
    Failure::host(code).message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(hosts: &[&str], origins: &[&str], listen: &str) -> Policy {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        Policy::new(&owned(hosts), &owned(origins), listen.parse().unwrap())
    }

    fn check(policy: &Policy, host: &str, origin: Option<&str>) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        policy
            .check(&headers)
            .map(|_| ())
            .map_err(|failure| failure.code.into_owned())
    }

    #[test]
    fn loopback_names_and_addresses_are_answered() {
        let policy = policy(&[], &[], "127.0.0.1");
        for host in [
            "localhost:3000",
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
        assert_eq!(
            check(&policy(&[], &[], "127.0.0.1"), "evil.example", None),
            refused
        );
        assert_eq!(
            check(
                &policy(&["live.example"], &[], "127.0.0.1"),
                "Live.Example:80",
                None
            ),
            Ok(())
        );
        assert_eq!(
            check(&policy(&["*"], &[], "127.0.0.1"), "any.example", None),
            Ok(())
        );
    }

    #[test]
    fn a_host_that_is_missing_or_given_twice_is_refused() {
        let policy = policy(&["*"], &[], "127.0.0.1");
        let mut headers = HeaderMap::new();
        assert!(policy.check(&headers).is_err());
        headers.append(HOST, "localhost".parse().unwrap());
        headers.append(HOST, "evil.example".parse().unwrap());
        assert!(policy.check(&headers).is_err());
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
        assert_eq!(
            check(&public, "live.example", Some("http://live.example")),
            Ok(())
        );
        assert!(check(&public, "live.example", Some("http://localhost:5173")).is_err());
        assert!(check(&public, "live.example", Some("http://live.example:8080")).is_err());
    }
}
