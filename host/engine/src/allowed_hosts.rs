//! Where a component may send HTTP requests: the list `allowed_outbound_hosts` of
//! `spin.toml`, parsed once, as Spin writes and reads it.
//!
//! `application` parses it, [`outbound`](super::outbound) asks it about each request.
//! Invariant: what is not listed is not allowed, and an address of the host's own network
//! is allowed by its own entry only, never by a wildcard.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::str::FromStr;

/// The hosts that a component may send requests to. By default there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    entries: Vec<Entry>,
}

/// An entry that is not of the agreed form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}`: {reason}")]
pub struct InvalidEntry {
    entry: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error(
        "expected `scheme://host[:port]`, found no `://`; \
         `*://*:*` allows every host, `http://` and `https://` are the schemes in use"
    )]
    NoScheme,
    #[error("expected a scheme of letters, or `*`, before `://`")]
    Scheme,
    #[error("expected no path after the host and its port")]
    Path,
    #[error(
        "requests to other components of a Spin application do not exist here; \
         call their actors instead"
    )]
    Spin,
    #[error("variables in entries are not offered; write the host out")]
    Template,
    #[error("lists in braces are not offered; write one entry for each")]
    List,
    #[error("a wildcard is the whole host (`*`) or its first label (`*.example.com`)")]
    Wildcard,
    #[error("expected a host name, an IP address (IPv6 in brackets), a network, or a wildcard")]
    Host,
    #[error("a port is needed, because the scheme has none of its own: `:443`, or `:*` for any")]
    NoPort,
    #[error("expected a port from 1 to 65535, a range `8000..9000` (without its end), or `*`")]
    Port,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    scheme: Schemes,
    host: Hosts,
    port: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Schemes {
    Any,
    /// Lower case. Spin has schemes beside HTTP's; here they match nothing.
    One(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    /// `.example.com`: what ends so and is longer.
    Below(String),
    Name(String),
    Network(Network),
}

/// The addresses that share their first bits; a single address shares all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ports {
    Any,
    Some(Range<u32>),
}

/// What the list says of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is listed, wherever its name leads.
    Allowed,
    /// A wildcard covers it, unless its name leads into the host's own network.
    IfExternal,
    /// It is not listed.
    Refused,
}

/// Where a request goes, in the one form in which it is both checked and connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    scheme: &'static str,
    host: Destination,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    /// Lower case.
    Name(String),
    Address(IpAddr),
}

impl AllowedHosts {
    /// Parses the entries of one component.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<AllowedHosts, InvalidEntry> {
        let parse = |entry: &S| {
            let entry = entry.as_ref();
            Entry::parse(entry.trim()).map_err(|reason| InvalidEntry {
                entry: entry.to_owned(),
                reason,
            })
        };
        let entries = entries.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(AllowedHosts { entries })
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a request may go there, and which addresses its name may have.
    pub(super) fn decide(&self, target: &Target) -> Verdict {
        let mut allowing = self.entries.iter().filter(|entry| entry.allows(target));
        if allowing.clone().any(|entry| !entry.host.is_wildcard()) {
            return Verdict::Allowed;
        }
        match allowing.next() {
            Some(_) => Verdict::IfExternal,
            None => Verdict::Refused,
        }
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Entry, Reason> {
        if text.contains("{{") {
            return Err(Reason::Template);
        }
        let (scheme, rest) = text.split_once("://").ok_or(Reason::NoScheme)?;
        let scheme = match scheme {
            "*" => Schemes::Any,
            list if list.starts_with('{') => return Err(Reason::List),
            name if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Schemes::One(name.to_ascii_lowercase())
            }
            _ => return Err(Reason::Scheme),
        };
        let (host, port) = split_port(rest.strip_suffix('/').unwrap_or(rest))?;
        Ok(Entry {
            host: Hosts::parse(&host.to_ascii_lowercase())?,
            port: Ports::parse(port, &scheme)?,
            scheme,
        })
    }

    fn allows(&self, target: &Target) -> bool {
        let scheme = match &self.scheme {
            Schemes::Any => true,
            Schemes::One(name) => name == target.scheme,
        };
        let port = match &self.port {
            Ports::Any => true,
            Ports::Some(range) => range.contains(&target.port.into()),
        };
        scheme && port && self.host.allows(&target.host)
    }
}

/// Takes the host and the port apart; colons within brackets are the address's own.
fn split_port(text: &str) -> Result<(&str, Option<&str>), Reason> {
    let address = match text.starts_with('[') {
        true => text.find(']').ok_or(Reason::Host)?,
        false => 0,
    };
    match text[address..].find(':') {
        None => Ok((text, None)),
        Some(colon) => match (&text[..address + colon], &text[address + colon + 1..]) {
            (_, port) if port.contains('/') => Err(Reason::Path),
            (_, port) if port.starts_with('{') => Err(Reason::List),
            (host, port) => Ok((host, Some(port))),
        },
    }
}

impl Hosts {
    fn is_wildcard(&self) -> bool {
        matches!(self, Hosts::Any | Hosts::Below(_))
    }

    /// `text` is in lower case.
    fn parse(text: &str) -> Result<Hosts, Reason> {
        let below_spin = |name: &str| name == "spin.internal" || name.ends_with(".spin.internal");
        match text {
            "*" => return Ok(Hosts::Any),
            "self" | "self.alt" => return Err(Reason::Spin),
            name if below_spin(name) => return Err(Reason::Spin),
            list if list.starts_with('{') => return Err(Reason::List),
            _ => {}
        }
        if let Some((address, bits)) = text.split_once('/') {
            return match Destination::parse(address) {
                Some(Destination::Address(address)) => Network::new(address, bits),
                _ => Err(Reason::Path),
            }
            .map(Hosts::Network);
        }
        if let Some(domain) = text.strip_prefix("*.") {
            return match is_name(domain) {
                true => Ok(Hosts::Below(format!(".{domain}"))),
                false if domain.contains('*') => Err(Reason::Wildcard),
                false => Err(Reason::Host),
            };
        }
        if text.contains('*') {
            return Err(Reason::Wildcard);
        }
        match Destination::parse(text).ok_or(Reason::Host)? {
            Destination::Address(address) => Ok(Hosts::Network(Network::only(address))),
            Destination::Name(name) => Ok(Hosts::Name(name)),
        }
    }

    fn allows(&self, host: &Destination) -> bool {
        match (self, host) {
            (Hosts::Any, host) => !host.is_internal(),
            (Hosts::Below(suffix), Destination::Name(name)) => {
                name.ends_with(suffix) && name.len() > suffix.len() && !host.is_internal()
            }
            (Hosts::Name(listed), Destination::Name(name)) => listed == name,
            (Hosts::Network(network), Destination::Address(address)) => network.contains(*address),
            _ => false,
        }
    }
}

/// Whether an address lies within the host's own machine or network.
pub(super) fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_internal_v4(address),
        IpAddr::V6(address) => is_internal_v6(address),
    }
}

impl Network {
    fn new(address: IpAddr, bits: &str) -> Result<Network, Reason> {
        let all = Network::only(address).bits;
        match bits.parse() {
            Ok(bits) if bits <= all => Ok(Network { address, bits }),
            _ => Err(Reason::Host),
        }
    }

    fn only(address: IpAddr) -> Network {
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Network { address, bits }
    }

    fn contains(&self, address: IpAddr) -> bool {
        // Both families end at the lowest bit, so that only the others are shifted out.
        let (ours, theirs, width) = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (u128::from(ours.to_bits()), u128::from(theirs.to_bits()), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits(), theirs.to_bits(), 128),
            _ => return false,
        };
        let free = width - u32::from(self.bits);
        (ours ^ theirs).checked_shr(free).unwrap_or(0) == 0
    }
}

impl Ports {
    fn parse(port: Option<&str>, scheme: &Schemes) -> Result<Ports, Reason> {
        let number = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(u32::from(port)),
            _ => Err(Reason::Port),
        };
        let one = |port: u32| Ports::Some(port..port + 1);
        match port {
            Some("*") => Ok(Ports::Any),
            Some(port) => match port.split_once("..") {
                None => number(port).map(one),
                Some((first, end)) => match (number(first)?, number(end)?) {
                    (first, end) if first < end => Ok(Ports::Some(first..end)),
                    _ => Err(Reason::Port),
                },
            },
            None => match scheme {
                Schemes::One(scheme) => well_known_port(scheme).map(one).ok_or(Reason::NoPort),
                Schemes::Any => Err(Reason::NoPort),
            },
        }
    }
}

/// The ports that an entry may leave out.
fn well_known_port(scheme: &str) -> Option<u32> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "postgres" => Some(5432),
        "mysql" => Some(3306),
        "redis" => Some(6379),
        "mqtt" => Some(1883),
        _ => None,
    }
}

impl Target {
    /// Where a request of this scheme to this authority goes. `None` for what is no such
    /// place, or could be read in two ways.
    pub(super) fn parse(scheme: &str, authority: &str) -> Option<Target> {
        let scheme = ["http", "https"]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known))?;
        let (host, port) = split_port(authority).ok()?;
        let port = match port {
            None => u16::try_from(well_known_port(scheme)?).ok()?,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok()?,
            Some(_) => return None,
        };
        Some(Target {
            scheme,
            host: Destination::parse(&host.to_ascii_lowercase())?,
            port,
        })
    }

    /// The authority that means this place and no other.
    pub(super) fn authority(&self) -> String {
        match &self.host {
            Destination::Name(name) => format!("{name}:{}", self.port),
            Destination::Address(address) => SocketAddr::new(*address, self.port).to_string(),
        }
    }

    /// Whether TLS shows that the peer is who the name says.
    pub(super) fn is_authenticated(&self) -> bool {
        self.scheme == "https"
    }
}

/// As an entry names it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

impl Destination {
    /// `text` is in lower case.
    fn parse(text: &str) -> Option<Destination> {
        if let Some(address) = text.strip_prefix('[') {
            let address = Ipv6Addr::from_str(address.strip_suffix(']')?).ok()?;
            return Some(Destination::Address(address.to_canonical()));
        }
        if let Ok(address) = Ipv4Addr::from_str(text) {
            return Some(Destination::Address(address.into()));
        }
        is_name(text).then(|| Destination::Name(text.to_owned()))
    }

    /// Whether it lies within the host's own machine or network, as far as the name tells.
    fn is_internal(&self) -> bool {
        match self {
            Destination::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Destination::Address(address) => is_internal(*address),
        }
    }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        // "This network" (RFC 791), which Linux takes for the machine itself.
        || first == 0
        // Shared by a provider's customers (RFC 6598).
        || (first == 100 && second & 0xc0 == 64)
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    // Embedded IPv4 addresses lead where these lead (RFC 4291, RFC 6052, RFC 3056).
    let embedded = match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    };
    address.is_loopback()
        || address.is_unspecified()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || address.is_multicast()
        || embedded.is_some_and(is_internal_v4)
}

/// Whether this is a DNS name in lower case. One whose last label is a number is not: system
/// resolvers take `127.1` and `0x7f.1` for addresses.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    let is_number = |label: &str| match label.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !is_number(last)
}

#[cfg(test)]
mod tests;
