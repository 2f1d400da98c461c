//! What is not an event stream, passed on to the component that it is for.

use std::time::{Duration, Instant};

use tidegate_core::Failure;
use tidegate_spin_base::database::Database;
use tidegate_spin_base::head::{Head, Target};
use tidegate_spin_base::incoming::{self, BODY_MAX_BYTES};
use tidegate_spin_base::outgoing::{Answer, Request, SendError};
use tidegate_spin_base::response::Response;
use tidegate_spin_base::signature::{Purpose, Statement};
use tidegate_spin_base::tokens::{self, TokenFrom, bearer};
use tidegate_spin_base::{clock, settings, tables, values};
use wasip2::http::types::IncomingRequest;

use crate::question::no_key;

/// Time for the component to answer: as long as a streaming turn may take.
const PATIENCE: Duration = Duration::from_secs(310);
/// What of a request's headers the component gets to see.
const PASSED_ON: [&str; 6] = [
    "accept",
    "authorization",
    "content-type",
    "idempotency-key",
    "traceparent",
    "x-request-id",
];

/// Passes a request on to the component that serves an actor.
pub(crate) fn to_actor(
    head: &Head,
    incoming: &IncomingRequest,
    target: &Target,
    response: &mut Response,
) -> Result<(), Failure> {
    let (actor, ..) = target.parts()?;
    let component = settings::component_of(actor)?;
    let body = incoming::body(incoming, BODY_MAX_BYTES)?;
    let mut path = head.path.clone();
    if let Some(query) = &head.query {
        path = format!("{path}?{query}");
    }
    let headers = head.headers.iter();
    let headers = headers.filter(|(name, _)| PASSED_ON.contains(&name.as_str()));
    let request = Request {
        component: &component,
        // Its answer is cut to its head here.
        method: match head.method.as_str() {
            "HEAD" => "GET",
            method => method,
        },
        target: &path,
        headers: headers.cloned().collect(),
        body: &body,
    };
    let answer = ask(&request, actor)?;
    if answer.status == 405
        && let Some(methods) = head.route().methods()
    {
        response.header("allow", methods);
    }
    relay(answer, response)
}

/// Asks the component that serves an actor type.
pub(crate) fn ask(request: &Request<'_>, actor: &str) -> Result<Answer, Failure> {
    let answer = request
        .send()
        .and_then(|pending| request.answer(&pending, Instant::now() + PATIENCE));
    answer.map_err(|error| match error {
        SendError::Broken(..) => {
            tidegate_spin_base::log!("{actor}: {error}");
            Failure::internal("the actor's component did not answer")
        }
        error => error.into(),
    })
}

/// Answers what another component has answered.
fn relay(answer: Answer, response: &mut Response) -> Result<(), Failure> {
    let text = String::from_utf8(answer.body).unwrap_or_default();
    match (answer.status, text.as_str()) {
        (500, "") => {
            return Err(Failure::handler_trapped());
        }
        (401, text) => {
            response.header("www-authenticate", "Bearer");
            response.json(401, text);
        }
        (status @ (429 | 503), text) => {
            response.header("retry-after", "1");
            response.json(status, text);
        }
        (status, "") => response.empty(status),
        (status, text) => response.json(status, text),
    }
    Ok(())
}

/// Passes a tick of the clock on to a component that has something to do, if there is one:
/// each does what is due of all.
pub(crate) fn tick(
    head: &Head,
    incoming: &IncomingRequest,
    response: &mut Response,
) -> Result<(), Failure> {
    incoming::body(incoming, BODY_MAX_BYTES)?;
    let key = settings::tick_key()?.ok_or_else(Failure::no_tick_key)?;
    let given = bearer(head, TokenFrom::Header).ok().flatten();
    if !given.is_some_and(|given| tokens::is_same(&given, &key)) {
        return Err(Failure::not_the_key());
    }
    let key = settings::internal_key()?.ok_or_else(no_key)?;
    let database = Database::open()?;
    // A message's sender, since nobody may serve its receiver.
    let due = tables::with(&database, || {
        database.read(
            "SELECT actor FROM tidegate_timers WHERE due_ms <= ?1
             UNION SELECT from_actor FROM tidegate_messages WHERE due_ms <= ?1",
            &values![clock::unix_ms()],
        )
    })?;
    let mut served = None;
    for mut row in due {
        let actor = row.text()?;
        // A type that is no longer served waits until it is again, and keeps nobody.
        if let Ok(component) = settings::component_of(&actor) {
            served = Some((actor, component));
            break;
        }
    }
    let Some((actor, component)) = served else {
        tables::prune(&database, clock::unix_ms())?;
        response.json(200, r#"{"failed":0,"messages":0,"woken":0}"#);
        return Ok(());
    };
    let statement = Statement::new(Purpose::Tick, clock::unix_ms());
    let request = Request {
        component: &component,
        method: "POST",
        target: "/_tidegate/tick",
        headers: Vec::new(),
        body: b"",
    };
    relay(ask(&request.signed(&key, &statement), &actor)?, response)
}
