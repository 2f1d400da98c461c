//! What HTTP itself asks of a request before any route looks at it (RFC 9110, RFC 9112).
//!
//! hyper has read the head and refused what is not HTTP. Pure.

use ::http::header::{CONTENT_ENCODING, EXPECT, HeaderMap, HeaderName, TRANSFER_ENCODING};
use ::http::{Method, Request, Version};
use tidegate_core::Failure;

/// The methods that some route takes.
pub(super) const METHODS: &str = "GET,HEAD,POST,PUT,DELETE,OPTIONS";

/// Says why a request cannot be any route's.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Failure> {
    let headers = request.headers();
    let uri = request.uri();
    if request.method() == Method::CONNECT {
        return Err(Failure::request_method_not_allowed("this host is no proxy"));
    }
    // RFC 9112, section 3.2: a path, an address of the web, or `*` for the host as a whole.
    let is_web = |scheme: &str| ["http", "https"].contains(&scheme);
    let is_target = match uri.path() {
        "*" => request.method() == Method::OPTIONS && uri.authority().is_none(),
        path => path.starts_with('/') && uri.scheme_str().is_none_or(is_web),
    };
    if !is_target || (uri.scheme().is_none() && uri.authority().is_some()) {
        let message = "expected a path, or an address of http or https, as the request's target";
        return Err(Failure::request_malformed(message));
    }
    if !all_are(headers, &TRANSFER_ENCODING, "chunked") {
        let message = "Transfer-Encoding: expected chunked";
        return Err(Failure::request_malformed(message).status(501));
    }
    // RFC 9112, section 6.1: it is applied once, and who reads it otherwise than somebody on the
    // way sees other requests.
    if elements(headers, &TRANSFER_ENCODING).count() > 1 {
        let message = "Transfer-Encoding: expected chunked once";
        return Err(Failure::request_malformed(message));
    }
    // An older client's is to be ignored (RFC 9110, section 10.1.1).
    if request.version() >= Version::HTTP_11 && !all_are(headers, &EXPECT, "100-continue") {
        return Err(Failure::request_expectation());
    }
    if !all_are(headers, &CONTENT_ENCODING, "identity") {
        let message = "Content-Encoding: expected none";
        return Err(Failure::request_unsupported_media(message));
    }
    Ok(())
}

/// Whether a header that is a list holds nothing but this, in all its lines.
fn all_are(headers: &HeaderMap, name: &HeaderName, expected: &str) -> bool {
    elements(headers, name).all(|element| element.eq_ignore_ascii_case(expected.as_bytes()))
}

/// The elements of a header that is a list, in all its lines.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use tidegate_core::failure::code;

    use super::*;

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<(), (u16, String)> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        check(&request).map_err(|failure| (failure.status, failure.code.into_owned()))
    }

    fn refused(status: u16, code: &str) -> Result<(), (u16, String)> {
        Err((status, code.to_owned()))
    }

    #[test]
    fn targets_are_paths_or_addresses_of_the_web() {
        for (method, target) in [
            ("GET", "/health"),
            ("GET", "/health?x=1"),
            ("GET", "http://live.example/health"),
            ("GET", "https://live.example"),
            ("OPTIONS", "*"),
        ] {
            assert_eq!(request(method, target, &[]), Ok(()), "{method} {target}");
        }
        for (method, target) in [
            ("GET", "*"),
            ("GET", "health"),
            ("GET", "live.example:80"),
            ("GET", "ftp://live.example/health"),
        ] {
            let malformed = refused(400, code::REQUEST_MALFORMED);
            assert_eq!(request(method, target, &[]), malformed, "{method} {target}");
        }
        let not_allowed = refused(405, code::REQUEST_METHOD_NOT_ALLOWED);
        assert_eq!(request("CONNECT", "live.example:80", &[]), not_allowed);
    }

    #[test]
    fn what_the_host_cannot_undo_or_do_is_refused() {
        let with = |name, value| request("POST", "/actors/a/b/c", &[(name, value)]);
        for (name, value) in [
            ("transfer-encoding", "Chunked"),
            ("expect", "100-Continue"),
            ("content-encoding", "identity"),
        ] {
            assert_eq!(with(name, value), Ok(()), "{name}: {value}");
        }
        for value in ["gzip, chunked", "identity", "chunked, chunked, x"] {
            let refused = refused(501, code::REQUEST_MALFORMED);
            assert_eq!(with("transfer-encoding", value), refused, "{value}");
        }
        let twice = refused(400, code::REQUEST_MALFORMED);
        assert_eq!(with("transfer-encoding", "chunked, chunked"), twice);
        let lines = [
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "Chunked"),
        ];
        assert_eq!(request("POST", "/actors/a/b/c", &lines), twice);
        let expectation = refused(417, code::REQUEST_EXPECTATION);
        assert_eq!(with("expect", "a-pony"), expectation);
        assert_eq!(with("expect", "100-continue, a-pony"), expectation);
        let media = refused(415, code::REQUEST_UNSUPPORTED_MEDIA);
        assert_eq!(with("content-encoding", "gzip"), media);
    }
}
