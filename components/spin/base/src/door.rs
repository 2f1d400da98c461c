//! What every request meets first: its name, and whether the page that sends it may.

use tidegate_core::Failure;
use wasip2::http::types::ResponseOutparam;

use crate::head::Head;
use crate::response::Response;
use crate::{clock, settings};

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
    response.header("access-control-expose-headers", "retry-after, x-request-id");
    response.header("vary", "origin");
    // What a browser sends ahead (WHATWG Fetch, section 3.3).
    if head.method != "OPTIONS" || head.text("access-control-request-method").is_none() {
        return Ok(Admitted::In);
    }
    response.header("access-control-allow-methods", "GET, POST, PUT, DELETE");
    response.header(
        "access-control-allow-headers",
        "authorization, content-type, last-event-id, traceparent, x-request-id",
    );
    response.header("access-control-max-age", "600");
    response.empty(204);
    Ok(Admitted::Answered)
}
