//! What the guard of an actor says: may this client see it, and what?

use serde_json::Value;
use tidegate_core::Failure;
use tidegate_spin_base::look::{Answer, Question, Subject};
use tidegate_spin_base::outgoing::{Request, actor_path};
use tidegate_spin_base::signature::{Purpose, Statement};
use tidegate_spin_base::{clock, settings};

use crate::forward;

/// What is missing where the components of an application do not trust each other.
pub(crate) fn no_key() -> Failure {
    Failure::unsupported_on_spin(
        "event streams need the variable `tidegate_internal_key`, which all components of the \
         application share",
    )
}

/// One who watches one actor.
pub(crate) struct Watcher<'a> {
    /// The actor type.
    pub(crate) actor: &'a str,
    /// The actor's id.
    pub(crate) id: &'a str,
    /// Who watches: verified claims.
    pub(crate) user: Option<&'a str>,
    /// What they want to see.
    pub(crate) subject: Subject,
}

impl Watcher<'_> {
    /// Asks the actor's component.
    pub(crate) fn ask(&self, tell: bool) -> Result<Answer, Failure> {
        let key = settings::internal_key()?.ok_or_else(no_key)?;
        let component = settings::component_of(self.actor)?;
        let question = Question {
            user: self.user.map(str::to_owned),
            subject: self.subject,
            tell,
        };
        let body = serde_json::to_vec(&question).expect("strings are JSON");
        let path = actor_path("/_tidegate/look", self.actor, self.id);
        let statement = Statement::new(Purpose::Look, clock::unix_ms());
        let request = Request {
            component: &component,
            method: "POST",
            target: &path,
            headers: Vec::new(),
            body: &body,
        };
        let answer = forward::ask(&request.signed(&key, &statement), self.actor)?;
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        if answer.status == 200
            && let Ok(answer) = serde_json::from_str(text)
        {
            return Ok(answer);
        }
        Err(refusal(answer.status, text))
    }
}

/// Why the component has not answered.
fn refusal(status: u16, body: &str) -> Failure {
    if status == 500 && body.is_empty() {
        return Failure::guard_trapped();
    }
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let error = &body["error"];
    match error["code"].as_str() {
        Some(code) => Failure::from_guest(
            code.to_owned(),
            error["message"].as_str().map(str::to_owned),
            error.get("params").map(Value::to_string),
            Some(status),
        ),
        None => Failure::internal(format_args!(
            "the actor's component answered with status {status}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::failure::code;

    use super::*;

    #[test]
    fn a_refusal_looks_as_the_guard_gave_it() {
        let failure = Failure::new("chat.members-only")
            .message("No.")
            .param("room", "a")
            .status(403);
        assert_eq!(refusal(403, &failure.http_body()), failure);
        assert_eq!(refusal(500, "").code, code::HANDLER_TRAPPED);
        assert_eq!(refusal(502, "oops").code, code::INTERNAL);
    }
}
