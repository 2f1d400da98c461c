//! What pages of allowed origins may send and read (WHATWG Fetch, section 3.3).
//!
//! The two lists are those of `docs/protocol.md`, which the tests compare.

use std::sync::LazyLock;

use ::http::header::{self, HeaderMap, HeaderValue};
use ::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};

/// Headers of requests that mean something to the host. Those that a page may always set
/// (`accept`) need no leave.
const REQUEST_HEADERS: [&str; 6] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "traceparent",
    "x-request-id",
];
/// Headers of answers that say something a page may want to know.
const RESPONSE_HEADERS: [&str; 4] = ["allow", "retry-after", "www-authenticate", "x-request-id"];

/// A page's first question, whether it may send a request that is not a simple one.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to it, for an origin that may.
pub(super) fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    static ALLOWED: LazyLock<HeaderValue> = LazyLock::new(|| list(&REQUEST_HEADERS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED.clone());
    let max_age = HeaderValue::from_static("600");
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
    response
}

/// Lets pages of this origin read an answer.
pub(super) fn allow(origin: HeaderValue, headers: &mut HeaderMap) {
    static EXPOSED: LazyLock<HeaderValue> = LazyLock::new(|| list(&RESPONSE_HEADERS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.clone());
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

fn list(names: &[&str]) -> HeaderValue {
    HeaderValue::from_str(&names.join(", ")).expect("names of headers are visible")
}
