//! The head of a request: its path, its headers, and what they ask for. The rules are the
//! host's (`host/gateway/src`), so that a client finds the same door.

use tidegate_core::Failure;
use tidegate_core::http::{self, Authority, Events, accepted_events, default_port, web_origin};
use tidegate_core::protocol::Since;

/// Longest request id that is taken over.
const REQUEST_ID_MAX_BYTES: usize = 128;
/// Longest `traceparent` that is passed on; version 00 of W3C Trace Context has 55 bytes.
const TRACEPARENT_MAX_BYTES: usize = 128;

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// `GET`, `POST`.
    pub method: String,
    /// As it was sent, percent-encoded, without the query.
    pub path: String,
    /// The query, without its question mark.
    pub query: Option<String>,
    /// Host and port that the request names.
    pub authority: Option<String>,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/health`
    Health,
    /// `/ready`
    Ready,
    /// `/actors/{actor}/{id}/{what}`
    Actor(Target),
    /// `/_tidegate/tick`
    Tick,
    /// `/_tidegate/wake/{actor}/{id}`: within the application only.
    Wake(Target),
    /// `/_tidegate/look/{actor}/{id}`: within the application only.
    Look(Target),
    /// Any other path: nothing is there.
    None,
}

/// The parts of a path that names an actor; an error when one of them is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    parts: Result<[String; 3], &'static str>,
}

impl Target {
    fn new(actor: &str, id: &str, what: &str) -> Target {
        let decoded = |key, part| percent_decode(part).ok_or(key);
        let parts = || {
            Ok([
                decoded("actor", actor)?,
                decoded("id", id)?,
                decoded("what", what)?,
            ])
        };
        Target { parts: parts() }
    }

    /// The actor type, the id, and what comes behind it.
    pub fn parts(&self) -> Result<(&str, &str, &str), Failure> {
        match &self.parts {
            Ok([actor, id, what]) => Ok((actor, id, what)),
            Err(key) => Err(Failure::request_malformed(format_args!(
                "Invalid URL: Invalid UTF-8 in `{key}`"
            ))),
        }
    }

    /// What comes behind the id.
    pub fn what(&self) -> Option<&str> {
        let [.., what] = self.parts.as_ref().ok()?;
        Some(what)
    }
}

impl Route {
    /// The methods that a path takes, as `Allow` lists them (RFC 9110, section 10.2.1); none of
    /// one that leads nowhere.
    pub fn methods(&self) -> Option<&'static str> {
        match self {
            Route::Health | Route::Ready => Some("GET,HEAD,OPTIONS"),
            Route::Actor(target) => Some(match target.what() {
                Some("state" | "events") => "GET,HEAD,POST,OPTIONS",
                _ => "POST,OPTIONS",
            }),
            Route::Tick | Route::Wake(_) | Route::Look(_) => Some("POST,OPTIONS"),
            Route::None => None,
        }
    }
}

impl Head {
    /// Reads the target of a request: path and query.
    #[must_use]
    pub fn of_target(mut self, target: &str) -> Head {
        match target.split_once('?') {
            Some((path, query)) => {
                self.path = path.to_owned();
                self.query = Some(query.to_owned());
            }
            None => self.path = target.to_owned(),
        }
        self
    }

    /// Every value of a header.
    fn all<'h>(&'h self, name: &'static str) -> impl Iterator<Item = &'h [u8]> + use<'h> {
        let named = self.headers.iter().filter(move |(found, _)| found == name);
        named.map(|(_, value)| value.as_slice())
    }

    /// The first value of a header, if it is visible ASCII text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let first = self.headers.iter().find(|(found, _)| found == name);
        ascii(&first?.1)
    }

    /// Where the path leads.
    pub fn route(&self) -> Route {
        let Some(path) = self.path.strip_prefix('/') else {
            return Route::None;
        };
        let parts: Vec<&str> = path.split('/').collect();
        match *parts.as_slice() {
            ["health"] => Route::Health,
            ["ready"] => Route::Ready,
            // What is empty before the last part names no actor, which is said of it.
            ["actors", actor, id, what] if !what.is_empty() => {
                Route::Actor(Target::new(actor, id, what))
            }
            ["_tidegate", "tick"] => Route::Tick,
            ["_tidegate", "wake", actor, id] => Route::Wake(Target::new(actor, id, "")),
            ["_tidegate", "look", actor, id] => Route::Look(Target::new(actor, id, "")),
            _ => Route::None,
        }
    }

    /// Whether the answer is to be a stream of events.
    pub fn wants_events(&self) -> bool {
        accepted_events(self.all("accept").filter_map(ascii)) == Events::Preferred
    }

    /// What is said of a path that leads nowhere. A request to upgrade on it is one for a
    /// WebSocket (RFC 6455); Spin passes on what only such a request has.
    pub fn not_found(&self) -> Failure {
        match self.text("sec-websocket-key") {
            Some(_) => Failure::unsupported_on_spin(
                "there are no WebSockets on Spin: subscribe by server-sent events, and call by \
                 POST",
            ),
            None => Failure::request_not_found(),
        }
    }

    /// `Idempotency-Key`, a string in quotes (draft-ietf-httpapi-idempotency-key-header),
    /// which many clients leave out.
    pub fn idempotency_key(&self) -> Result<Option<String>, Failure> {
        http::idempotency_key(self.all("idempotency-key").map(ascii))
    }

    /// The trace context that is passed on.
    pub fn traceparent(&self) -> Option<&str> {
        self.text("traceparent")
            .filter(|value| value.len() <= TRACEPARENT_MAX_BYTES)
    }

    /// The name that the client gave the request, if it is fit for a log.
    pub fn request_id(&self) -> Option<&str> {
        self.text("x-request-id").filter(|id| {
            (1..=REQUEST_ID_MAX_BYTES).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_graphic())
        })
    }

    /// What a client that comes back has seen of a state: the id of its last event.
    pub fn last_event(&self) -> Option<Since> {
        let (epoch, version) = self.text("last-event-id")?.split_once(':')?;
        Some(Since {
            epoch: epoch.to_owned(),
            version: version.parse().ok()?,
        })
    }

    /// Whether the client reads patches with `str_ins`.
    pub fn wants_str_ins(&self) -> bool {
        let mut pairs = form_urlencoded::parse(self.query.as_deref().unwrap_or("").as_bytes());
        pairs.any(|(name, value)| name == "patch" && value == "str_ins")
    }

    /// The page that sends the request, if it may; none when it is no page.
    ///
    /// A page may that this application serves itself, and one of the origins that it
    /// lists. `Host` itself is Spin's affair.
    pub fn origin(&self, allowed: &[String]) -> Result<Option<&str>, Failure> {
        let forbidden = |message: String| Err(Failure::request_forbidden_origin(message));
        let mut origins = self.all("origin");
        let Some(origin) = origins.next() else {
            // A page of another site may send a plain GET without saying so (W3C Fetch
            // Metadata); following a link is something else.
            let says = |name, value| self.text(name) == Some(value);
            if says("sec-fetch-site", "cross-site") && !says("sec-fetch-mode", "navigate") {
                return forbidden("pages of other sites may not send requests".to_owned());
            }
            return Ok(None);
        };
        let origin = ascii(origin).filter(|_| origins.next().is_none());
        match origin {
            Some(origin) if self.allows(origin, allowed) => Ok(Some(origin)),
            origin => forbidden(format!(
                "pages of `{}` may not connect: add the origin to TIDEGATE_ORIGINS",
                origin.unwrap_or("?")
            )),
        }
    }

    fn allows(&self, origin: &str, allowed: &[String]) -> bool {
        let origin = origin.to_ascii_lowercase();
        if allowed.iter().any(|one| *one == "*" || *one == origin) {
            return true;
        }
        let own = self.authority.as_deref().and_then(Authority::parse);
        let (Some((scheme, page)), Some(own)) = (web_origin(&origin), own) else {
            return false;
        };
        let default = default_port(scheme);
        page.host == own.host && page.port.unwrap_or(default) == own.port.unwrap_or(default)
    }

    /// Every `Authorization`.
    pub(crate) fn authorizations(&self) -> impl Iterator<Item = Option<&str>> {
        self.all("authorization").map(ascii)
    }
}

/// Text of visible characters, as `HeaderValue::to_str` takes it.
fn ascii(value: &[u8]) -> Option<&str> {
    let visible = |b: &u8| (0x20..0x7f).contains(b) || *b == b'\t';
    value
        .iter()
        .all(visible)
        .then(|| std::str::from_utf8(value).ok())
        .flatten()
}

/// A part of a path as it was meant; none when that is not UTF-8. What is not an escape
/// stays as it is.
fn percent_decode(part: &str) -> Option<String> {
    let hex = |b: Option<&u8>| (*b? as char).to_digit(16);
    let mut bytes = part.as_bytes().iter();
    let mut decoded = Vec::with_capacity(part.len());
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        match (byte, hex(rest.first()), hex(rest.get(1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                bytes = rest[2..].iter();
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok()
}

/// A text as one part of a path.
pub fn percent_encode(part: &str) -> String {
    let mut encoded = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                encoded.push(byte as char);
            }
            // A part of dots alone would be taken for a step.
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &str, headers: &[(&str, &str)]) -> Head {
        let headers = headers.iter();
        Head {
            authority: Some("localhost:3000".to_owned()),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            ..Head::default()
        }
        .of_target(path)
    }

    fn target(path: &str) -> Result<(String, String, String), String> {
        let Route::Actor(target) = head(path, &[]).route() else {
            return Err("no route".to_owned());
        };
        let parts = target
            .parts()
            .map_err(|failure| failure.text().to_owned())?;
        Ok((parts.0.to_owned(), parts.1.to_owned(), parts.2.to_owned()))
    }

    #[test]
    fn a_path_names_an_actor_whatever_its_id() {
        let names = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(
            target("/actors/chat/a%2Fb/say"),
            names("chat", "a/b", "say")
        );
        assert_eq!(
            target("/actors/chat/%C3%A4/say?x=1"),
            names("chat", "ä", "say")
        );
        assert_eq!(
            target("/actors/chat/100%/say"),
            names("chat", "100%", "say")
        );
        assert_eq!(
            target("/actors/chat/%ff/say").unwrap_err(),
            "Invalid URL: Invalid UTF-8 in `id`"
        );
    }

    #[test]
    fn an_empty_part_names_no_actor() {
        let names = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(target("/actors/a//c"), names("a", "", "c"));
        assert_eq!(target("/actors//b/c"), names("", "b", "c"));
        let refused = tidegate_core::ActorId::check("").map_err(Failure::from);
        assert_eq!(refused.unwrap_err().code, "actor.invalid-id");
    }

    #[test]
    fn a_path_says_which_methods_it_takes() {
        let methods = |path| head(path, &[]).route().methods();
        assert_eq!(methods("/health"), Some("GET,HEAD,OPTIONS"));
        let read = Some("GET,HEAD,POST,OPTIONS");
        assert_eq!(methods("/actors/a/b/state"), read);
        assert_eq!(methods("/actors/a/b/c"), Some("POST,OPTIONS"));
        assert_eq!(methods("/nothing"), None);
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "/",
            "/actors",
            "/actors/a/b",
            "/actors/a/b/",
            "/actors/a/b/c/",
            "/actors/a/b//c",
            "/health/",
        ] {
            assert_eq!(head(path, &[]).route(), Route::None, "{path}");
        }
        assert_eq!(head("/health", &[]).route(), Route::Health);
        assert_eq!(head("/_tidegate/tick", &[]).route(), Route::Tick);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for text in ["a/b", "..", "ä 100%", "\u{0}", "-_~"] {
            let encoded = percent_encode(text);
            assert!(!encoded.contains(['/', '.', ' ']), "{encoded}");
            assert_eq!(percent_decode(&encoded).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_stream_is_asked_for_by_its_media_type() {
        let accepts = |value| head("/", &[("accept", value)]).wants_events();
        assert!(accepts("text/html, Text/Event-Stream;q=0.5"));
        assert!(!accepts("application/json"));
        assert!(!head("/", &[]).wants_events());
    }

    #[test]
    fn a_websocket_is_refused_by_name() {
        let socket = head("/ws", &[("sec-websocket-key", "dGhl")]).not_found();
        assert_eq!((&*socket.code, socket.status), ("unsupported.on-spin", 501));
        assert_eq!(head("/ws", &[]).not_found().code, "request.not-found");
    }

    #[test]
    fn an_idempotency_key_may_be_quoted() {
        let key = |value| head("/", &[("idempotency-key", value)]).idempotency_key();
        assert_eq!(key("\"a b\""), Ok(Some("a b".to_owned())));
        assert_eq!(key("a"), Ok(Some("a".to_owned())));
        assert_eq!(head("/", &[]).idempotency_key(), Ok(None));
        for bad in ["", "\"\"", &"a".repeat(129), "ä"] {
            assert_eq!(key(bad).unwrap_err().code, "request.malformed", "{bad:?}");
        }
    }

    #[test]
    fn a_page_of_this_application_or_a_listed_one_may_connect() {
        let allowed = ["https://app.example".to_owned()];
        let origin = |value| {
            let head = head("/", &[("origin", value)]);
            head.origin(&allowed).map(|o| o.map(str::to_owned))
        };
        for good in ["http://localhost:3000", "HTTPS://APP.example"] {
            assert_eq!(origin(good), Ok(Some(good.to_owned())));
        }
        for bad in [
            "null",
            "http://localhost:3001",
            "http://localhost",
            "https://evil.example",
        ] {
            let failure = origin(bad).unwrap_err();
            assert_eq!(
                (&*failure.code, failure.status),
                ("request.forbidden-origin", 403)
            );
        }
        assert_eq!(head("/", &[]).origin(&allowed), Ok(None));
        let cross = head("/", &[("sec-fetch-site", "cross-site")]);
        assert!(cross.origin(&allowed).is_err());
    }

    #[test]
    fn the_last_event_names_a_place_in_a_history() {
        let since = head("/", &[("last-event-id", "ab:7")])
            .last_event()
            .unwrap();
        assert_eq!((&*since.epoch, since.version), ("ab", 7));
        assert_eq!(head("/", &[("last-event-id", "7")]).last_event(), None);
    }
}
