//! The opening handshake: is this HTTP request a WebSocket upgrade, and what answers it.
//!
//! Pure functions over `http` types; the gateway calls them before it hands the connection to
//! [`Socket`](super::Socket). Extensions are never accepted, so whatever the client offers in
//! `Sec-WebSocket-Extensions` is declined by silence. Of subprotocols one is selected if any is
//! offered, since a browser that offers some fails without.

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use thiserror::Error;

/// The only version of the protocol there is.
const VERSION_13: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The subprotocol that is spoken here.
const SUBPROTOCOL: &str = "tidegate";
/// What an offered entry begins with that is not a subprotocol but carries a token.
const TOKEN: &str = "tidegate.token.";

/// Why an upgrade request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// `Upgrade: websocket` and `Connection: upgrade` are not both there.
    #[error("expected a WebSocket upgrade: send `Connection: Upgrade` and `Upgrade: websocket`")]
    NotAnUpgrade,
    /// The method is not GET.
    #[error("a WebSocket upgrade is a GET request, found {0}")]
    Method(Method),
    /// The request is not HTTP/1.1.
    #[error("a WebSocket upgrade needs HTTP/1.1, found {0:?}")]
    HttpVersion(Version),
    /// `Sec-WebSocket-Version` is missing or not 13.
    #[error(
        "only version 13 of the WebSocket protocol is spoken: send `Sec-WebSocket-Version: 13`"
    )]
    Version,
    /// `Sec-WebSocket-Key` is missing, repeated or not 16 bytes in base64.
    #[error("`Sec-WebSocket-Key` must be given once and hold 16 bytes in base64")]
    Key,
}

impl HandshakeError {
    /// 426 where the client can mend its request by upgrading (differently), 405 for the method,
    /// else 400.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotAnUpgrade | Self::HttpVersion(_) | Self::Version => {
                StatusCode::UPGRADE_REQUIRED
            }
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Key => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers that go with the status: what the client should upgrade to.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::NotAnUpgrade | Self::HttpVersion(_) | Self::Version => {
                headers.insert(UPGRADE, WEBSOCKET);
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, VERSION_13);
            }
            Self::Method(_) => {
                headers.insert(http::header::ALLOW, HeaderValue::from_static("GET"));
            }
            Self::Key => {}
        }
        headers
    }

    /// The refusal as a response whose body is `body`.
    pub fn response<B>(&self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers();
        response
    }
}

/// An upgrade request that is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
}

impl Accepted {
    /// The `101 Switching Protocols` that completes the handshake.
    pub fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if let Some(protocol) = &self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
        }
        response
    }
}

/// Whether the headers ask for an upgrade to WebSocket, in order or not; such a request belongs to
/// [`accept`], any other to the HTTP routes.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    names(headers, &CONNECTION, "upgrade") && names(headers, &UPGRADE, "websocket")
}

/// Checks an upgrade request by RFC 6455 section 4.2.1.
///
/// `Host` and `Origin` are the gateway's business.
///
/// # Errors
/// The first rule that the request breaks.
pub fn accept(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<Accepted, HandshakeError> {
    if !is_upgrade(headers) {
        return Err(HandshakeError::NotAnUpgrade);
    }
    if method != Method::GET {
        return Err(HandshakeError::Method(method.clone()));
    }
    if version != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion(version));
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(&VERSION_13) {
        return Err(HandshakeError::Version);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key.as_bytes()))
        .ok_or(HandshakeError::Key)?;
    Ok(Accepted {
        accept: accept_key(key).ok_or(HandshakeError::Key)?,
        protocol: selected(headers),
    })
}

/// The subprotocol that answers an offer (RFC 6455, section 4.2.2): ours, else the first.
fn selected(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut offered = offered(headers).filter(|protocol| !protocol.starts_with(TOKEN));
    let first = offered.next()?;
    let is_ours = |protocol: &&str| *protocol == SUBPROTOCOL;
    let selected = match is_ours(&first) {
        true => first,
        false => offered.find(is_ours).unwrap_or(first),
    };
    HeaderValue::from_str(selected).ok()
}

/// The tokens that are carried by an offer of subprotocols, as `tidegate.token.TOKEN`.
pub fn offered_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    offered(headers).filter_map(|protocol| protocol.strip_prefix(TOKEN))
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    // RFC 9110, section 5.6.2; what is none cannot be sent back either.
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    tokens(headers, &SEC_WEBSOCKET_PROTOCOL).filter(move |name| name.bytes().all(is_token))
}

/// The answer to a key, which soketto derives from a request of exactly the headers that count.
fn accept_key(key: &HeaderValue) -> Option<HeaderValue> {
    let request = Request::builder()
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, WEBSOCKET)
        .header(SEC_WEBSOCKET_VERSION, VERSION_13)
        .header(SEC_WEBSOCKET_KEY, key)
        .body(())
        .ok()?;
    let response = soketto::handshake::http::Server::new()
        .receive_request(&request)
        .ok()?;
    response.headers().get(SEC_WEBSOCKET_ACCEPT).cloned()
}

/// Whether `key` has the shape of 16 bytes in base64; section 4.2.1 asks for no more, the bytes
/// themselves mean nothing.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22]
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/'))
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn names(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The elements of a header that is a comma-separated list, over all its lines.
fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455 section 1.3, with one header replaced or removed.
    fn request(changed: Option<(HeaderName, Option<&'static str>)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(
            SEC_WEBSOCKET_KEY,
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        headers.insert(SEC_WEBSOCKET_VERSION, VERSION_13);
        if let Some((name, value)) = changed {
            headers.remove(&name);
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        headers
    }

    fn check(
        changed: Option<(HeaderName, Option<&'static str>)>,
    ) -> Result<Accepted, HandshakeError> {
        accept(&Method::GET, Version::HTTP_11, &request(changed))
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let response: Response<()> = check(None).unwrap().response();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            response.headers()[SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(response.headers()[UPGRADE], "websocket");
        assert_eq!(response.headers()[CONNECTION], "upgrade");
    }

    #[test]
    fn one_of_the_offered_subprotocols_is_selected() {
        for (offer, expected) in [
            (&[][..], None),
            (&["chat"], Some("chat")),
            (&["chat, tidegate"], Some("tidegate")),
            (&["chat", "other, tidegate"], Some("tidegate")),
            (&["tidegate, chat"], Some("tidegate")),
            (&["tidegate.token.a.b.c, chat"], Some("chat")),
            (&["tidegate.token.a.b.c"], None),
            (&["a b, {x}, chat"], Some("chat")),
            (&[""], None),
        ] {
            let mut headers = request(None);
            for line in offer {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
            }
            let accepted = accept(&Method::GET, Version::HTTP_11, &headers).unwrap();
            let response: Response<()> = accepted.response();
            let selected = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
            let selected = selected.map(|selected| selected.to_str().unwrap());
            assert_eq!(selected, expected, "{offer:?}");
        }
    }

    #[test]
    fn a_token_may_be_carried_by_the_offer() {
        let mut headers = request(None);
        let offer = "tidegate, tidegate.token.a.b-_.c";
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
        headers.append(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("tidegate.token."),
        );
        let tokens: Vec<&str> = offered_tokens(&headers).collect();
        assert_eq!(tokens, ["a.b-_.c", ""]);
    }

    #[test]
    fn what_is_no_upgrade_is_told_what_to_upgrade_to() {
        for changed in [
            (UPGRADE, None),
            (UPGRADE, Some("h2c")),
            (CONNECTION, None),
            (CONNECTION, Some("keep-alive")),
        ] {
            let error = check(Some(changed)).unwrap_err();
            assert_eq!(error, HandshakeError::NotAnUpgrade);
            let response = error.response(());
            assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
            assert_eq!(response.headers()[UPGRADE], "websocket");
        }
    }

    #[test]
    fn another_version_is_told_the_one_we_speak() {
        for version in [None, Some("8"), Some("13, 8"), Some("")] {
            let error = check(Some((SEC_WEBSOCKET_VERSION, version))).unwrap_err();
            assert_eq!(error, HandshakeError::Version);
            let response = error.response(());
            assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
            assert_eq!(response.headers()[SEC_WEBSOCKET_VERSION], "13");
        }
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        for key in [
            None,
            Some(""),
            Some("dGhlIHNhbXBsZSBub25jZQ"),
            Some("dGhlIHNhbXBsZSBub25jZQAA"),
            Some("dGhlIHNhbXBsZSBub25j!Q=="),
            Some("dGhlIHNhbXBsZSBub25jZSE="),
            Some("dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            let error = check(Some((SEC_WEBSOCKET_KEY, key))).unwrap_err();
            assert_eq!(error, HandshakeError::Key, "{key:?}");
            assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let mut headers = request(None);
        let key = headers[SEC_WEBSOCKET_KEY].clone();
        headers.append(SEC_WEBSOCKET_KEY, key);
        let error = accept(&Method::GET, Version::HTTP_11, &headers).unwrap_err();
        assert_eq!(error, HandshakeError::Key);
    }

    #[test]
    fn an_upgrade_is_a_get_over_http_1_1() {
        let headers = request(None);
        let error = accept(&Method::POST, Version::HTTP_11, &headers).unwrap_err();
        assert_eq!(error.status(), StatusCode::METHOD_NOT_ALLOWED);
        let error = accept(&Method::GET, Version::HTTP_10, &headers).unwrap_err();
        assert_eq!(error, HandshakeError::HttpVersion(Version::HTTP_10));
    }

    #[test]
    fn lists_are_read_over_several_lines_and_any_case() {
        let mut headers = request(Some((CONNECTION, Some("keep-alive"))));
        headers.append(CONNECTION, HeaderValue::from_static("foo ,\tUPGRADE"));
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        assert!(accept(&Method::GET, Version::HTTP_11, &headers).is_ok());
    }
}
