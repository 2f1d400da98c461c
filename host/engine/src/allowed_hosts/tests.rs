//! Which entries allow which targets.

use proptest::prelude::*;

use super::*;

impl AllowedHosts {
    /// Whether a request may go there, as far as the name tells.
    fn allows(&self, target: &Target) -> bool {
        self.decide(target) != Verdict::Refused
    }
}

#[test]
fn only_what_is_listed_may_lead_anywhere() {
    let decide = |entries: &[&str], url: &str| {
        let (scheme, authority) = url.split_once("://").unwrap();
        allowed(entries).decide(&Target::parse(scheme, authority).unwrap())
    };
    for wildcard in ["*://*:*", "http://*.example.com"] {
        let found = decide(&[wildcard], "http://a.example.com");
        assert_eq!(found, Verdict::IfExternal, "{wildcard}");
        let listed = [wildcard, "http://a.example.com"];
        assert_eq!(decide(&listed, "http://a.example.com"), Verdict::Allowed);
    }
    assert_eq!(
        decide(&["http://*.example.com"], "http://b.org"),
        Verdict::Refused
    );
}

#[test]
fn embedded_addresses_lead_where_they_lead() {
    for internal in [
        "2002:7f00:1::",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "::127.0.0.1",
    ] {
        assert!(is_internal(internal.parse().unwrap()), "{internal}");
    }
    for external in ["2002:0808:0808::", "2606:4700::1111", "8.8.8.8"] {
        assert!(!is_internal(external.parse().unwrap()), "{external}");
    }
}

fn allowed(entries: &[&str]) -> AllowedHosts {
    AllowedHosts::parse(entries).unwrap_or_else(|error| panic!("{error}"))
}

fn allows(entry: &str, url: &str) -> bool {
    let (scheme, authority) = url.split_once("://").expect("a URL");
    Target::parse(scheme, authority).is_some_and(|target| allowed(&[entry]).allows(&target))
}

fn refusal(entry: &str) -> String {
    match AllowedHosts::parse(&[entry]) {
        Err(error) => error.to_string(),
        Ok(parsed) => panic!("`{entry}` is taken for {parsed:?}"),
    }
}

#[test]
fn an_entry_allows_what_it_names_and_nothing_else() {
    let table: &[(&str, &[&str], &[&str])] = &[
        (
            "https://api.example.com",
            &[
                "https://api.example.com",
                "https://api.example.com:443",
                "HTTPS://API.Example.COM",
            ],
            &[
                "http://api.example.com",
                "http://api.example.com:443",
                "https://api.example.com:444",
                "https://example.com",
                "https://x.api.example.com",
                "https://api.example.com.evil.org",
                "https://evilapi.example.com",
                "https://api.example.com.",
                "https://user@api.example.com",
                "https://evil.org#@api.example.com",
                "https://api.example.com:443@evil.org",
            ],
        ),
        (
            "http://127.0.0.1:*",
            &[
                "http://127.0.0.1",
                "http://127.0.0.1:1",
                "http://127.0.0.1:65535",
            ],
            &[
                "https://127.0.0.1",
                "http://127.0.0.2",
                "http://127.1",
                "http://2130706433",
                "http://0x7f000001",
                "http://0177.0.0.1",
                "http://localhost",
                "http://127.0.0.1:65536",
                "http://127.0.0.1:+80",
                "http://127.0.0.1:",
            ],
        ),
        (
            "https://*.example.com:443",
            &["https://a.example.com", "https://a.b.example.com"],
            &[
                "https://example.com",
                "https://.example.com",
                "https://aexample.com",
                "https://a.example.com:8443",
                "https://a.example.com.evil.org",
            ],
        ),
        (
            "*://*:*",
            &[
                "http://example.com",
                "https://example.com:1234",
                "http://93.184.216.34",
                "http://[2606:2800:220:1::1]",
            ],
            &[
                "ftp://example.com",
                "http://localhost",
                "http://LOCALHOST:80",
                "http://a.localhost",
                "http://127.0.0.1",
                "http://127.1",
                "http://0x7f.1",
                "http://0",
                "http://0.0.0.0",
                "http://10.1.2.3",
                "http://172.16.0.1",
                "http://192.168.0.1",
                "http://169.254.169.254",
                "http://100.64.0.1",
                "http://224.0.0.1",
                "http://255.255.255.255",
                "http://[::]",
                "http://[::1]",
                "http://[::ffff:127.0.0.1]",
                "http://[::127.0.0.1]",
                "http://[64:ff9b::7f00:1]",
                "http://[fe80::1]",
                "http://[fd00::1]",
                "http://[ff02::1]",
            ],
        ),
        (
            "*://example.com:8000..8002",
            &["http://example.com:8000", "https://example.com:8001"],
            &[
                "http://example.com:7999",
                "http://example.com:8002",
                "http://example.com",
            ],
        ),
        (
            "http://*:80",
            &["http://example.com"],
            &[
                "http://example.com:81",
                "https://example.com:80",
                "http://127.0.0.1",
            ],
        ),
        (
            "http://localhost:3001",
            &["http://localhost:3001", "http://LocalHost:3001"],
            &["http://127.0.0.1:3001", "http://x.localhost:3001"],
        ),
        (
            "http://[::1]:8080",
            &["http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080"],
            &[
                "http://[::2]:8080",
                "http://127.0.0.1:8080",
                "http://[::1]",
                "http://::1:8080",
            ],
        ),
        (
            "http://[::1]",
            &["http://[::1]:80"],
            &["http://[::1]:8080", "http://[::1", "http://[::1]80"],
        ),
        (
            "http://10.0.0.0/8:80",
            &["http://10.0.0.0", "http://10.255.255.255"],
            &[
                "http://11.0.0.0",
                "http://9.255.255.255",
                "http://10.0.0.1:81",
            ],
        ),
        (
            "http://[fd00::]/8:80",
            &["http://[fd12::1]"],
            &["http://[fe80::1]", "http://[fd12::1]:81", "http://10.0.0.1"],
        ),
        (
            "http://0.0.0.0/0:80",
            &["http://127.0.0.1"],
            &["http://[::1]"],
        ),
        // Spin's other schemes concern what this host does not offer.
        (
            "redis://example.com",
            &[],
            &["http://example.com:6379", "https://example.com:6379"],
        ),
        ("https://example.com/", &["https://example.com"], &[]),
        (" https://example.com ", &["https://example.com"], &[]),
    ];
    for (entry, good, bad) in table {
        for url in *good {
            assert!(allows(entry, url), "`{entry}` does not allow {url}");
        }
        for url in *bad {
            assert!(!allows(entry, url), "`{entry}` allows {url}");
        }
    }
}

#[test]
fn without_entries_nothing_is_allowed() {
    let target = Target::parse("https", "example.com").unwrap();
    assert!(!AllowedHosts::default().allows(&target));
    assert!(AllowedHosts::default().is_empty());
}

#[test]
fn any_entry_of_a_list_suffices() {
    let list = allowed(&["https://a.example", "http://b.example"]);
    assert!(list.allows(&Target::parse("http", "b.example").unwrap()));
    assert!(!list.allows(&Target::parse("https", "b.example").unwrap()));
}

#[test]
fn an_entry_of_another_form_is_refused_by_name() {
    let table = [
        ("*", "no `://`"),
        ("", "no `://`"),
        ("example.com", "no `://`"),
        ("insecure:allow-all", "no `://`"),
        ("://example.com", "scheme"),
        ("ht tp://example.com", "scheme"),
        ("{http,https}://example.com", "braces"),
        ("http://{a,b}:80", "braces"),
        ("http://example.com:{80,81}", "braces"),
        ("http://self", "actors"),
        ("*://self:*", "actors"),
        ("http://self.alt", "actors"),
        ("http://other.spin.internal", "actors"),
        ("http://*.spin.internal", "actors"),
        ("http://SPIN.internal", "actors"),
        ("https://{{ host }}", "variables"),
        ("https://a.*.com", "wildcard"),
        ("https://*a.com", "wildcard"),
        ("https://*.*.com", "wildcard"),
        ("https://*.", "host name"),
        ("https://", "host name"),
        ("https://a b", "host name"),
        ("https://a..b", "host name"),
        ("https://-a", "host name"),
        ("https://ü.example", "host name"),
        ("https://user@example.com", "host name"),
        ("https://127.1", "host name"),
        ("https://0x7f.0x1", "host name"),
        ("https://256.0.0.1", "host name"),
        ("https://[::1", "host name"),
        ("https://[127.0.0.1]", "host name"),
        ("https://10.0.0.0/33", "host name"),
        ("https://example.com/path", "path"),
        ("https://example.com:443/path", "path"),
        ("*://example.com", "port is needed"),
        ("ftp://example.com", "port is needed"),
        ("http://example.com:0", "65535"),
        ("http://example.com:65536", "65535"),
        ("http://example.com:+80", "65535"),
        ("http://example.com:80..80", "65535"),
        ("http://example.com:90..80", "65535"),
        ("http://example.com:a..b", "65535"),
        ("http://example.com:", "65535"),
    ];
    for (entry, expected) in table {
        let message = refusal(entry);
        assert!(
            message.contains(expected) && message.contains(&format!("`{entry}`")),
            "{entry}: {message}"
        );
    }
}

#[test]
fn the_authority_that_is_connected_to_is_the_one_that_was_checked() {
    for (authority, expected) in [
        ("Example.com", "example.com:443"),
        ("example.com:8443", "example.com:8443"),
        ("[::FFFF:1.2.3.4]:1", "1.2.3.4:1"),
        ("[2001:DB8:0::1]", "[2001:db8::1]:443"),
    ] {
        assert_eq!(
            Target::parse("https", authority).map(|target| target.authority()),
            Some(expected.to_owned())
        );
    }
}

/// A host name of some labels.
fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){0,3}"
}

proptest! {
    #[test]
    fn an_exact_entry_allows_one_host_and_port(
        listed in name(), asked in name(), port in 1..=u16::MAX, other in 1..=u16::MAX,
    ) {
        let list = allowed(&[&format!("https://{listed}:{port}")]);
        let ask = |host: &str, port: u16| {
            list.allows(&Target::parse("https", &format!("{host}:{port}")).unwrap())
        };
        prop_assert!(ask(&listed, port));
        prop_assert_eq!(ask(&asked, other), asked == listed && other == port);
        let below = format!("x.{listed}");
        prop_assert!(!ask(&below, port));
    }

    #[test]
    fn a_wildcard_allows_what_lies_below_and_only_that(domain in name(), host in name()) {
        let list = allowed(&[&format!("https://*.{domain}")]);
        let ask = |host: &str| list.allows(&Target::parse("https", host).unwrap());
        let below = format!(".{domain}");
        prop_assert_eq!(ask(&host), host.ends_with(&below) && !host.ends_with("localhost"));
        prop_assert!(!ask(&domain));
    }

    #[test]
    fn no_wildcard_reaches_an_internal_address(
        address in any::<u32>().prop_map(Ipv4Addr::from_bits),
    ) {
        let list = allowed(&["*://*:*"]);
        let target = Target::parse("http", &address.to_string()).unwrap();
        prop_assert_eq!(list.allows(&target), !is_internal_v4(address));
        let mapped = Target::parse("http", &format!("[{}]", address.to_ipv6_mapped())).unwrap();
        prop_assert_eq!(list.allows(&mapped), !is_internal_v4(address));
        let itself = allowed(&[&format!("http://{address}")]);
        prop_assert!(itself.allows(&target));
    }

    #[test]
    fn what_is_parsed_is_what_a_socket_would_be_opened_to(authority in "[a-z0-9.:@\\[\\]%-]{0,24}") {
        if let Some(target) = Target::parse("http", &authority) {
            let again = Target::parse("http", &target.authority()).unwrap();
            prop_assert_eq!(&again, &target);
            let uri: http::uri::Authority = target.authority().parse().unwrap();
            prop_assert_eq!(uri.port_u16(), Some(target.port));
        }
    }

    #[test]
    fn no_entry_makes_the_parser_panic(entry in ".{0,40}") {
        let _ = AllowedHosts::parse(&[entry]);
    }
}
