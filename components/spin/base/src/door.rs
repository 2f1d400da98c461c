//! What every request meets first: its name, and whether the page that sends it may.

use tidegate_core::Failure;
use wasip2::http::types::ResponseOutparam;

use crate::head::Head;
use crate::response::Response;
use crate::{clock, settings};

/// Headers of requests that mean something here, and that pages may set.
const ALLOWED: &str =
    "authorization, content-type, idempotency-key, last-event-id, traceparent, x-request-id";
/// Headers of answers that pages may read.
const EXPOSED: &str = "allow, retry-after, www-authenticate, x-request-id";

/// The answer to a request that may come in; none when it has been answered.
pub fn open(head: &Head, out: ResponseOutparam) -> Option<Response> {
    let mut response = Response::new(out);
    let id = head.request_id().map(str::to_owned);
    response.header("x-request-id", id.unwrap_or_else(|| clock::random_id(8)));
    if head.method == "HEAD" {
        response.without_body();
    }
    match admit(head, &mut response) {
        Ok(Admitted::In) => Some(response),
        Ok(Admitted::Answered) => None,
        Err(failure) => {
            response.fail(&failure);
            None
        }
    }
}

enum Admitted {
    In,
    Answered,
}

fn admit(head: &Head, response: &mut Response) -> Result<Admitted, Failure> {
    let Some(origin) = head.origin(&settings::origins())? else {
        return Ok(Admitted::In);
    };
    response.header("access-control-allow-origin", origin);
    response.header("access-control-expose-headers", EXPOSED);
    response.header("vary", "origin");
    // What a browser sends ahead (WHATWG Fetch, section 3.3).
    if head.method != "OPTIONS" || head.text("access-control-request-method").is_none() {
        return Ok(Admitted::In);
    }
    response.header("access-control-allow-methods", "GET, HEAD, POST");
    response.header("access-control-allow-headers", ALLOWED);
    response.header("access-control-max-age", "600");
    response.empty(204);
    Ok(Admitted::Answered)
}

/// Answers a request whose path does not take its method, and says which it does (RFC 9110,
/// sections 9.3.7 and 15.5.6).
pub fn refuse_method(head: &Head, response: &mut Response) {
    if let Some(methods) = head.route().methods() {
        response.header("allow", methods);
    }
    match head.method.as_str() {
        "OPTIONS" => response.empty(204),
        _ => response.fail(&Failure::path_method_not_allowed()),
    }
}
