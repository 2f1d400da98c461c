//! Which address a request comes from, seen through reverse proxies that are trusted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};

use super::AuthError;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses whose `x-forwarded-for` is believed.
#[derive(Clone, Debug, Default)]
pub struct ClientAddress {
    trusted: Vec<Network>,
}

impl ClientAddress {
    /// Reads `gateway.trusted-proxies`: IP addresses (`10.1.2.3`) and networks
    /// (`10.0.0.0/8`, `fd00::/8`).
    pub fn new(trusted: &[String]) -> Result<ClientAddress, AuthError> {
        let networks = trusted.iter().map(|text| {
            Network::parse(text).map_err(|problem| AuthError::Setting {
                name: "gateway.trusted-proxies",
                problem,
            })
        });
        Ok(ClientAddress {
            trusted: networks.collect::<Result<_, _>>()?,
        })
    }

    /// The client's address: the peer's own, unless the peer is a trusted proxy; then the
    /// right-most address in `x-forwarded-for` that is not, since what stands further left
    /// was written by whoever has that address. If all are trusted, the left-most counts; if
    /// something there is not an address, the peer's own.
    ///
    /// IPv4 addresses that are mapped into IPv6 are returned as IPv4.
    pub fn of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        for line in headers.get_all(FORWARDED_FOR).iter().rev() {
            let Ok(line) = line.to_str() else {
                return peer;
            };
            for hop in line.rsplit(',') {
                match forwarded(hop.trim()) {
                    Some(address) => client = address,
                    None => return peer,
                }
                if !self.trusts(client) {
                    return client;
                }
            }
        }
        client
    }

    /// Whether this is a proxy that is trusted.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// An entry of `x-forwarded-for`: an address, which some proxies put a port behind.
fn forwarded(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    address
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

/// What an address counts as for limits: an IPv6 address as its /64, all of which one
/// client commonly has.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Network, String> {
        let expected =
            || format!("expected an IP address or a network such as 10.0.0.0/8, found `{text}`");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let prefix = match prefix {
            None => bits,
            Some(prefix) if prefix.bytes().all(|b| b.is_ascii_digit()) => {
                prefix.parse().map_err(|_| expected())?
            }
            Some(_) => return Err(expected()),
        };
        if prefix > bits {
            return Err(format!(
                "`{text}`: expected at most {bits} bits behind the slash"
            ));
        }
        let (first, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix >= 96 => (mapped.into(), prefix - 96),
            _ => (address, prefix),
        };
        let network = Network {
            first: masked(first, prefix),
            prefix,
        };
        if network.first != first {
            return Err(format!(
                "`{text}` has bits set behind its prefix: write {}/{prefix} for the network, or \
                 {first} for the one address",
                network.first
            ));
        }
        Ok(network)
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.prefix) == self.first
    }
}

fn masked(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusting(networks: &[&str]) -> ClientAddress {
        let owned: Vec<String> = networks.iter().map(|n| n.to_string()).collect();
        ClientAddress::new(&owned).unwrap()
    }

    fn of(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let address = trusting(trusted).of(peer.parse().unwrap(), &headers);
        address.to_string()
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_forwards() {
        assert_eq!(of(&[], "9.9.9.9", &["1.1.1.1"]), "9.9.9.9");
        assert_eq!(of(&["10.0.0.0/8"], "9.9.9.9", &["1.1.1.1"]), "9.9.9.9");
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_is_the_client() {
        let proxies = ["10.0.0.0/8"];
        assert_eq!(of(&proxies, "10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        let chain = ["6.6.6.6, 1.1.1.1,10.2.2.2 , 10.3.3.3"];
        assert_eq!(of(&proxies, "10.0.0.1", &chain), "1.1.1.1");
    }

    #[test]
    fn several_headers_are_one_list() {
        let lines = ["6.6.6.6", "1.1.1.1, 10.2.2.2"];
        assert_eq!(of(&["10.0.0.0/8"], "10.0.0.1", &lines), "1.1.1.1");
    }

    #[test]
    fn a_chain_of_proxies_alone_begins_at_the_left() {
        assert_eq!(
            of(&["10.0.0.0/8"], "10.0.0.1", &["10.1.1.1, 10.2.2.2"]),
            "10.1.1.1"
        );
        assert_eq!(of(&["10.0.0.0/8"], "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_is_no_address_gives_the_peer() {
        for garbage in [
            "",
            "unknown",
            "1.1.1.1, x",
            "1.1.1.1,",
            "1.1.1",
            "[1.1.1.1]",
            "::g",
        ] {
            assert_eq!(
                of(&["10.0.0.1"], "10.0.0.1", &[garbage]),
                "10.0.0.1",
                "{garbage}"
            );
        }
    }

    #[test]
    fn garbage_left_of_the_client_is_not_read() {
        assert_eq!(
            of(&["10.0.0.1"], "10.0.0.1", &["<script>, 1.1.1.1"]),
            "1.1.1.1"
        );
    }

    #[test]
    fn ports_and_brackets_are_read_over() {
        for (entry, expected) in [
            ("1.1.1.1:8080", "1.1.1.1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(of(&["10.0.0.1"], "10.0.0.1", &[entry]), expected);
        }
    }

    #[test]
    fn mapped_addresses_are_the_ones_they_stand_for() {
        assert_eq!(
            of(&["10.0.0.1"], "::ffff:10.0.0.1", &["::ffff:1.1.1.1"]),
            "1.1.1.1"
        );
        assert_eq!(
            of(&["::ffff:10.0.0.0/104"], "10.9.9.9", &["1.1.1.1"]),
            "1.1.1.1"
        );
        assert_eq!(of(&[], "::ffff:9.9.9.9", &[]), "9.9.9.9");
    }

    #[test]
    fn networks_hold_what_begins_with_their_bits() {
        for (network, inside, outside) in [
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "255.1.1.1", "2001:db8::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001:db8::1", "1.1.1.1"),
            ("::1", "::1", "::2"),
        ] {
            let trusted = trusting(&[network]);
            assert!(trusted.trusts(inside.parse().unwrap()), "{network}");
            assert!(!trusted.trusts(outside.parse().unwrap()), "{network}");
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for (bad, says) in [
            ("proxy.example", "expected an IP address"),
            ("", "expected an IP address"),
            ("10.0.0.0/", "expected an IP address"),
            ("10.0.0.0/+8", "expected an IP address"),
            ("10.0.0.0/33", "at most 32 bits"),
            ("fd00::/129", "at most 128 bits"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
        ] {
            let error = ClientAddress::new(&[bad.to_owned()])
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("gateway.trusted-proxies: "), "{error}");
            assert!(error.contains(says) && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let counted = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("2001:db8:1:2:ffff::"), counted("2001:db8:1:2::1"));
        assert_ne!(counted("2001:db8:1:3::1"), counted("2001:db8:1:2::1"));
        assert_eq!(counted("1.2.3.4"), "1.2.3.4");
        assert_eq!(counted("::ffff:1.2.3.4"), "1.2.3.4");
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(line in "[0-9a-f:.,\\[\\] x]{0,60}") {
            let _ = of(&["10.0.0.0/8", "::/0"], "10.0.0.1", &[&line]);
        }

        #[test]
        fn no_network_makes_it_panic(text in "[0-9a-f:./]{0,40}") {
            let _ = Network::parse(&text);
        }

        #[test]
        fn a_network_of_any_address_holds_it(bits in any::<u32>(), prefix in 0u32..=32) {
            let address = IpAddr::V4(bits.into());
            let text = format!("{}/{prefix}", masked(address, prefix));
            prop_assert!(Network::parse(&text).unwrap().contains(address));
        }
    }
}
