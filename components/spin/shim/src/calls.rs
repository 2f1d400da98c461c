//! Calls to other actors of the application, through Spin's internal host. Who calls, and
//! who waits for whom, is signed: else anybody could claim to be an actor.

use std::time::Instant;

use serde_json::Value;
use tidegate_core::Failure;
use tidegate_core::failure::code;
use tidegate_core::turn::Invocation;
use tidegate_spin_base::outgoing::{Pending, Request, SendError, actor_path};
use tidegate_spin_base::settings;
use tidegate_spin_base::signature::Statement;

/// A call that is under way.
pub(crate) struct Begun {
    component: String,
    pending: Pending,
}

/// What is missing where the components of an application do not trust each other.
pub(crate) fn no_key() -> Failure {
    Failure::unsupported_on_spin(
        "calls between actors need the variable `tidegate_internal_key`, which all components \
         of the application share",
    )
}

/// Begins a call.
pub(crate) fn begin(
    call: &Invocation,
    statement: &Statement,
    traceparent: Option<&str>,
    key: &[u8],
) -> Result<Begun, Failure> {
    let component = settings::component_of(&call.actor)?;
    let path = actor_path("/actors", &call.actor, &call.id);
    let method = tidegate_spin_base::head::percent_encode(&call.method);
    let target = format!("{path}/{method}");
    let mut headers = Vec::new();
    if let Some(key) = &call.key {
        let key = serde_json::to_string(key).unwrap_or_default();
        headers.push(("idempotency-key".to_owned(), key.into_bytes()));
    }
    if let Some(traceparent) = traceparent {
        headers.push(("traceparent".to_owned(), traceparent.as_bytes().to_vec()));
    }
    let request = Request {
        component: &component,
        method: "POST",
        target: &target,
        headers,
        body: call.input.as_deref().unwrap_or("").as_bytes(),
    };
    let pending = request.signed(key, statement).send()?;
    Ok(Begun { component, pending })
}

impl Begun {
    /// Waits for the result.
    pub(crate) fn result(self, until: Instant) -> Result<Option<String>, Failure> {
        let request = Request {
            component: &self.component,
            method: "POST",
            target: "",
            headers: Vec::new(),
            body: b"",
        };
        let answer = request.answer(&self.pending, until);
        let answer = answer.map_err(|error| match error {
            SendError::Late => Failure::call_timeout(),
            error => error.into(),
        })?;
        let result = result_of(answer.status, &answer.body);
        match result {
            // The called one ran into the caller's deadline, which is its own as well.
            Err(failure) if failure.code == code::TURN_DEADLINE && Instant::now() >= until => {
                Err(Failure::call_timeout())
            }
            result => result,
        }
    }
}

/// What an answer says.
fn result_of(status: u16, body: &[u8]) -> Result<Option<String>, Failure> {
    let text = std::str::from_utf8(body).ok();
    match (status, text) {
        (204, _) => Ok(None),
        (200, Some(text)) => Ok(Some(text.to_owned())),
        (500, Some("")) => Err(Failure::handler_trapped()),
        (status, text) => Err(text
            .and_then(|text| failure_of(text, status))
            .unwrap_or_else(|| {
                Failure::internal(format_args!(
                    "the called component answered with status {status}"
                ))
            })),
    }
}

fn failure_of(body: &str, status: u16) -> Option<Failure> {
    let body: Value = serde_json::from_str(body).ok()?;
    let error = body.get("error")?;
    let code = error.get("code")?.as_str()?.to_owned();
    let message = error.get("message").and_then(Value::as_str);
    let params = error.get("params").map(Value::to_string);
    Some(Failure::from_guest(
        code,
        message.map(str::to_owned),
        params,
        Some(status),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_result_or_a_failure_that_looks_as_it_did() {
        assert_eq!(
            result_of(200, b"{\"a\":1}"),
            Ok(Some("{\"a\":1}".to_owned()))
        );
        assert_eq!(result_of(204, b""), Ok(None));
        let failure = Failure::new("chat.full")
            .message("No.")
            .param("max", 2)
            .status(409);
        let body = failure.http_body();
        assert_eq!(result_of(409, body.as_bytes()), Err(failure));
    }

    #[test]
    fn an_empty_500_is_a_trap() {
        assert_eq!(result_of(500, b"").unwrap_err().code, code::HANDLER_TRAPPED);
        assert_eq!(result_of(502, b"oops").unwrap_err().code, code::INTERNAL);
    }
}
