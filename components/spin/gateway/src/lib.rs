//! What Spin calls. It alone can call both the handler and the shim, so it carries out what
//! the shim decides: one job of the handler after the other, until the request is answered.
//! It decides nothing itself, and holds nothing.

// Natively there is nothing but the tests.
#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod bindings;

use bindings::tidegate::realtime::{access, actor, manifest};
use bindings::tidegate::spin::control::{self, Job, Outcome, Subject, View};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Gateway;

impl Guest for Gateway {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        let mut next = control::begin(request, response);
        while let Some(job) = next {
            next = control::finish(&done(job));
        }
    }
}

fn done(job: Job) -> Outcome {
    match job {
        Job::Describe => Outcome::Described(manifest::describe()),
        Job::Invoke(call) => {
            let input = call.input.as_deref();
            Outcome::Invoked(actor::invoke(&call.turn, &call.method, input))
        }
        Job::Activate(turn) => Outcome::Activated(actor::activate(&turn)),
        Job::Authorize(question) => {
            let asked = access::Subscription {
                who: question.who,
                to: match question.to {
                    Subject::State => access::Subject::State,
                    Subject::Events => access::Subject::Events,
                },
            };
            let answers = access::authorize(&question.this, &[asked]);
            Outcome::Authorized(single(answers).unwrap_or_else(|| Err(undecided())))
        }
        Job::Project(looking) => {
            let views = access::project(&looking.this, &[looking.who]);
            Outcome::Projected(match single(views) {
                Some(access::View::Whole) => Ok(View::Whole),
                Some(access::View::Document(document)) => Ok(View::Document(document)),
                Some(access::View::Nothing) => Ok(View::Nothing),
                // There is no earlier one.
                Some(access::View::SameAs(_)) | None => Err(undecided()),
            })
        }
    }
}

/// The one answer to the one question.
fn single<T>(answers: Vec<T>) -> Option<T> {
    match <[T; 1]>::try_from(answers) {
        Ok([answer]) => Some(answer),
        Err(_) => None,
    }
}

/// What is said of a guard that does not answer as the contract says.
fn undecided() -> bindings::tidegate::realtime::types::Failure {
    bindings::tidegate::realtime::types::Failure {
        code: "handler.failed".to_owned(),
        message: Some("the actor's guard did not decide".to_owned()),
        params: None,
        http_status: Some(500),
    }
}

// Other linkers refuse the names that a component's exports have.
#[cfg(target_family = "wasm")]
wasip2::http::proxy::export!(Gateway);
