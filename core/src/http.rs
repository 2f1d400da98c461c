//! What headers of HTTP requests mean to the doors of a host, and of an application on Spin.
//!
//! Pure functions over the headers' texts, so that both read them alike.

use std::net::{IpAddr, Ipv6Addr};

use crate::failure::Failure;
use crate::protocol::RPC_ID_MAX_BYTES;

/// What an `Accept` header (RFC 9110, section 12.5.1) says of a stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// The client would rather have `text/event-stream` than `application/json`.
    Preferred,
    /// It would rather have JSON, or does not say.
    NotPreferred,
    /// It refuses a stream by name.
    Refused,
}

/// Reads all lines of the `Accept` header.
///
/// Of two types that are as welcome, the one that is named goes before the one that a
/// wildcard covers, and a stream before JSON: who names it knows what to do with it.
///
/// ```
/// use tidegate_core::http::{Events, accepted_events};
/// assert_eq!(accepted_events(["text/event-stream"]), Events::Preferred);
/// assert_eq!(accepted_events(["text/event-stream;q=0, */*"]), Events::Refused);
/// assert_eq!(accepted_events(["*/*"]), Events::NotPreferred);
/// ```
pub fn accepted_events<'a>(lines: impl IntoIterator<Item = &'a str>) -> Events {
    let mut events = Quality::default();
    let mut document = Quality::default();
    for range in lines.into_iter().flat_map(|line| split(line, b',')) {
        let mut parts = split(range, b';');
        let media = parts.next().unwrap_or_default().trim();
        let weight = parts.find_map(weight).unwrap_or(1_000);
        events.consider(media, "text", "event-stream", weight);
        document.consider(media, "application", "json", weight);
    }
    let Quality { named, weight } = events;
    match weight {
        0 if named == Some(Named::Exactly) => Events::Refused,
        0 => Events::NotPreferred,
        weight if weight > document.weight => Events::Preferred,
        weight if weight == document.weight && named == Some(Named::Exactly) => Events::Preferred,
        _ => Events::NotPreferred,
    }
}

/// How welcome a media type is, in thousandths, by the range that names it most exactly.
#[derive(Clone, Copy, Debug, Default)]
struct Quality {
    named: Option<Named>,
    weight: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    ByAny,
    ByType,
    Exactly,
}

impl Quality {
    fn consider(&mut self, range: &str, kind: &str, subtype: &str, weight: u16) {
        let Some((found, rest)) = range.split_once('/') else {
            return;
        };
        let named = match (found, rest) {
            ("*", "*") => Named::ByAny,
            (found, "*") if found.eq_ignore_ascii_case(kind) => Named::ByType,
            (found, rest)
                if found.eq_ignore_ascii_case(kind) && rest.eq_ignore_ascii_case(subtype) =>
            {
                Named::Exactly
            }
            _ => return,
        };
        if self.named < Some(named) || (self.named == Some(named) && self.weight < weight) {
            *self = Quality {
                named: Some(named),
                weight,
            };
        }
    }
}

/// The weight that a parameter is, in thousandths; a malformed one says nothing.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, decimals) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let is_number = decimals.len() <= 3 && decimals.bytes().all(|b| b.is_ascii_digit());
    let decimals = format!("{decimals:0<3}")
        .parse()
        .ok()
        .filter(|_| is_number)?;
    match whole {
        "0" => Some(decimals),
        "1" if decimals == 0 => Some(1_000),
        _ => None,
    }
}

/// The parts of a header between separators that are not within quotes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            let plain = !std::mem::take(&mut escaped);
            match byte {
                b'"' if plain => quoted = !quoted,
                b'\\' if plain && quoted => escaped = true,
                _ => {}
            }
            byte == separator && !quoted
        });
        let (part, behind) = match end {
            Some(end) => (&text[..end], Some(&text[end + 1..])),
            None => (text, None),
        };
        rest = behind;
        Some(part)
    })
}

/// Whether a body of this `Content-Type` is read as JSON.
///
/// JSON by any of its names is, and so are the types that tools send when they are told
/// nothing (`curl -d`, `fetch` with a text); the text has to be JSON in any case. Another
/// charset than UTF-8 is not (RFC 8259, section 8.1).
///
/// ```
/// use tidegate_core::http::is_read_as_json;
/// assert!(is_read_as_json("application/json; charset=utf-8"));
/// assert!(!is_read_as_json("multipart/form-data; boundary=x"));
/// ```
pub fn is_read_as_json(content_type: &str) -> bool {
    let mut parts = split(content_type, b';');
    let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_known = matches!(
        &*media,
        "application/json"
            | "text/json"
            | "text/plain"
            | "application/x-www-form-urlencoded"
            | "application/octet-stream"
    ) || (media.starts_with("application/") && media.ends_with("+json"));
    is_known
        && parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            !name.trim().eq_ignore_ascii_case("charset")
                || ["utf-8", "utf8", "us-ascii"]
                    .iter()
                    .any(|known| value.eq_ignore_ascii_case(known))
        })
}

/// What all lines of `Idempotency-Key` say (draft-ietf-httpapi-idempotency-key-header): a
/// string in quotes, which many clients leave out. A line that is not text is `None`.
///
/// ```
/// use tidegate_core::http::idempotency_key;
/// assert_eq!(idempotency_key([Some("\"k\""), Some("k")]), Ok(Some("k".to_owned())));
/// assert!(idempotency_key([Some("k"), Some("l")]).is_err());
/// ```
pub fn idempotency_key<'a>(
    lines: impl IntoIterator<Item = Option<&'a str>>,
) -> Result<Option<String>, Failure> {
    let mut key: Option<&str> = None;
    for line in lines {
        let line = line.unwrap_or_default().trim();
        let bare = line
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let found = bare.unwrap_or(line);
        let message = match key {
            _ if !(1..=RPC_ID_MAX_BYTES).contains(&found.len()) => {
                "Idempotency-Key: expected 1 to 128 ASCII characters"
            }
            Some(first) if first != found => {
                "Idempotency-Key: expected one key, found two that differ"
            }
            _ => {
                key = Some(found);
                continue;
            }
        };
        return Err(Failure::request_malformed(message));
    }
    Ok(key.map(str::to_owned))
}

/// A host and perhaps a port, as `Host`, `Origin` and request targets name them (RFC 3986,
/// section 3.2, without user information).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// In lower case, without the dot at its end that DNS allows; an IPv6 address in its
    /// brackets.
    pub host: String,
    /// The port, where one is given.
    pub port: Option<u16>,
}

/// The most bytes of a host; a name of DNS has 253 (RFC 1035, section 2.3.4).
const NAME_MAX_BYTES: usize = 255;

impl Authority {
    /// Reads an authority; `None` for what is none.
    ///
    /// ```
    /// use tidegate_core::http::Authority;
    /// let authority = Authority::parse("Live.Example.:8080").unwrap();
    /// assert_eq!((&*authority.host, authority.port), ("live.example", Some(8080)));
    /// assert_eq!(Authority::parse("user@live.example"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Authority> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, behind) = rest.split_once(']')?;
                address.parse::<Ipv6Addr>().ok()?;
                let port = match behind {
                    "" => None,
                    behind => Some(behind.strip_prefix(':')?),
                };
                (&text[..address.len() + 2], port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b);
        if !(1..=NAME_MAX_BYTES).contains(&name.len())
            || !(host.starts_with('[') || name.bytes().all(is_name))
        {
            return None;
        }
        let port = match port {
            // RFC 3986 lets the number be absent behind its colon.
            None | Some("") => None,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
        };
        Some(Authority {
            host: name.to_ascii_lowercase(),
            port,
        })
    }

    /// The address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        let bare = self
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        bare.unwrap_or(&self.host).parse().ok()
    }
}

/// The scheme and the authority of an `Origin`; `None` for one that is not of the web.
pub fn web_origin(origin: &str) -> Option<(&'static str, Authority)> {
    let (scheme, rest) = origin.split_once("://")?;
    let scheme = ["http", "https"]
        .into_iter()
        .find(|known| scheme.eq_ignore_ascii_case(known))?;
    Some((scheme, Authority::parse(rest)?))
}

/// The port that a scheme has when none is named.
pub fn default_port(scheme: &str) -> u16 {
    match scheme {
        "https" => 443,
        _ => 80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::code;

    #[test]
    fn the_more_welcome_form_is_chosen() {
        use Events::{NotPreferred, Preferred, Refused};
        for (accept, expected) in [
            ("text/event-stream", Preferred),
            ("Text/Event-Stream; charset=utf-8", Preferred),
            ("text/event-stream;q=0.001", Preferred),
            ("text/html, text/event-stream;q=0.5", Preferred),
            ("text/event-stream, application/json", Preferred),
            ("application/json, text/event-stream", Preferred),
            ("text/event-stream, */*", Preferred),
            ("application/json;q=0.4, text/event-stream;q=0.5", Preferred),
            ("application/json;q=0, */*", Preferred),
            ("text/*", Preferred),
            ("application/json, text/event-stream;q=0.9", NotPreferred),
            ("text/event-stream;q=0.5, */*;q=0.8", NotPreferred),
            ("*/*", NotPreferred),
            ("text/*, application/*", NotPreferred),
            ("application/json", NotPreferred),
            ("text/html,application/xml;q=0.9,*/*;q=0.8", NotPreferred),
            (
                "x/y;a=\"text/event-stream, text/event-stream\"",
                NotPreferred,
            ),
            ("text/event-stream-like", NotPreferred),
            ("", NotPreferred),
            (";;,,/", NotPreferred),
            ("text/event-stream;q=0", Refused),
            ("text/event-stream; q=0.000", Refused),
            ("text/event-stream;q=0, text/*", Refused),
        ] {
            assert_eq!(accepted_events([accept]), expected, "{accept}");
        }
        assert_eq!(accepted_events([]), NotPreferred);
        assert_eq!(
            accepted_events(["application/json;q=0.1", "text/event-stream"]),
            Preferred
        );
    }

    #[test]
    fn a_malformed_weight_says_nothing() {
        for weight in ["q", "q=", "q=x", "q=1.5", "q=0.0000", "q=-1", "q=2"] {
            let accept = format!("text/event-stream;{weight}");
            assert_eq!(accepted_events([&*accept]), Events::Preferred, "{weight}");
        }
    }

    #[test]
    fn json_is_read_by_any_of_its_names() {
        for good in [
            "application/json",
            "Application/JSON;charset=\"UTF-8\"",
            "application/problem+json",
            "application/x-www-form-urlencoded",
            "text/plain;charset=UTF-8",
        ] {
            assert!(is_read_as_json(good), "{good}");
        }
        for bad in [
            "",
            "text/html",
            "application/xml",
            "multipart/form-data; boundary=application/json",
            "application/json; charset=utf-16",
            "application/msgpack",
            "image/svg+json",
        ] {
            assert!(!is_read_as_json(bad), "{bad}");
        }
    }

    #[test]
    fn one_idempotency_key_is_taken_however_often_it_is_said() {
        assert_eq!(idempotency_key([]), Ok(None));
        assert_eq!(
            idempotency_key([Some("\"a b\"")]),
            Ok(Some("a b".to_owned()))
        );
        assert_eq!(
            idempotency_key([Some("a"), Some("\"a\"")]),
            Ok(Some("a".to_owned()))
        );
        let long = "a".repeat(129);
        for bad in [
            &[Some("")][..],
            &[Some("\"\"")],
            &[Some(&*long)],
            &[None],
            &[Some("a"), Some("b")],
            &[Some("a"), Some("a"), Some("")],
        ] {
            let failure = idempotency_key(bad.iter().copied()).unwrap_err();
            assert_eq!(failure.code, code::REQUEST_MALFORMED, "{bad:?}");
        }
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let parsed = |text| Authority::parse(text).map(|found| (found.host, found.port));
        for (text, host, port) in [
            ("localhost", "localhost", None),
            ("LOCALHOST.:3000", "localhost", Some(3000)),
            ("live.example:", "live.example", None),
            ("[::1]:80", "[::1]", Some(80)),
            ("[::1]", "[::1]", None),
            ("127.0.0.1.", "127.0.0.1", None),
            ("a_b", "a_b", None),
        ] {
            assert_eq!(parsed(text), Some((host.to_owned(), port)), "{text}");
        }
        for bad in [
            "", ".", ":80", "a b", "a/b", "a:b", "a:1:2", "a:65536", "a:+1", "u@a", "a\\b", "[::1",
            "[x]", "[::1]x", "::1", "é", "a,b:1,2", "a?b", "a#b",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
        assert!(
            Authority::parse("[::1]:1")
                .unwrap()
                .ip()
                .unwrap()
                .is_loopback()
        );
        assert_eq!(Authority::parse("live.example").unwrap().ip(), None);
    }

    #[test]
    fn an_origin_of_the_web_has_a_scheme_and_an_authority() {
        let (scheme, authority) = web_origin("HTTPS://App.example").unwrap();
        assert_eq!(
            (scheme, &*authority.host, authority.port),
            ("https", "app.example", None)
        );
        for bad in [
            "null",
            "file://x",
            "https:/x",
            "http://a/b",
            "http://",
            "ws://a",
        ] {
            assert_eq!(web_origin(bad), None, "{bad}");
        }
    }
}
