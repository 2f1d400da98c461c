//! The [`Host`] of a component: the imports of `wit/actor.wit`, and the conversions between
//! generated types and the SDK's own.

use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::actor::Outcome;
use crate::bindings::tidegate::realtime::{actors, outbox, state, timers, turns, types};
use crate::context::{Client, Origin, Turn};
use crate::host::{Audience, Flush, Host, Invocation, NewTimer, Op};
use crate::timer::Firing;

/// The host that called this component.
pub(crate) struct Imports;

thread_local! {
    /// One for all turns, because each allocation counts in a small one.
    static IMPORTS: Rc<dyn Host> = Rc::new(Imports);
}

/// The host that calls.
pub(crate) fn host() -> Rc<dyn Host> {
    IMPORTS.with(Rc::clone)
}

impl Host for Imports {
    fn token(&self) -> u64 {
        state::token()
    }

    fn read(&self) -> String {
        state::read()
    }

    fn replace(&self, doc: &str) -> Result<u64, Failure> {
        state::replace(doc).map_err(failure)
    }

    fn get(&self, pointer: &str) -> Option<String> {
        state::get(pointer)
    }

    fn patch(&self, op: Op<'_>) -> Result<(), Failure> {
        let entry = |pointer: &str, value: &str| state::Entry {
            pointer: pointer.to_owned(),
            value: value.to_owned(),
        };
        let op = match op {
            Op::Add { pointer, value } => state::Op::Add(entry(pointer, value)),
            Op::Replace { pointer, value } => state::Op::Replace(entry(pointer, value)),
            Op::Remove { pointer } => state::Op::Remove(pointer.to_owned()),
            Op::Append { pointer, text } => state::Op::Append(state::Tail {
                pointer: pointer.to_owned(),
                text: text.to_owned(),
            }),
        };
        state::patch(&[op]).map(drop).map_err(failure)
    }

    fn emit(&self, event: &str, payload: &str, to: &Audience) -> Result<(), Failure> {
        let to = match to {
            Audience::Everyone => outbox::Audience::Everyone,
            Audience::Only(ids) => outbox::Audience::Only(ids.clone()),
            Audience::Except(ids) => outbox::Audience::Except(ids.clone()),
        };
        outbox::emit(event, payload, &to).map_err(failure)
    }

    fn connections(&self) -> Vec<String> {
        outbox::connections()
    }

    fn cancelled(&self) -> bool {
        turns::cancelled()
    }

    fn checkpoint(&self, when: Flush) -> Result<(), Failure> {
        turns::checkpoint(match when {
            Flush::Due => turns::Flush::Due,
            Flush::Now => turns::Flush::Now,
        })
        .map_err(failure)
    }

    fn chunk(&self, payload: &str) -> Result<(), Failure> {
        outbox::chunk(payload).map_err(failure)
    }

    fn set_timer(&self, timer: NewTimer) -> Result<u64, Failure> {
        let mut life = timers::Life::empty();
        life.set(timers::Life::IDLE, timer.idle);
        life.set(timers::Life::OUTLIVE, timer.outlive);
        let set = if timer.repeats {
            timers::every
        } else {
            timers::after
        };
        set(timer.ms, timer.method, timer.input.as_deref(), life).map_err(failure)
    }

    fn cancel_timer(&self, id: u64) -> bool {
        timers::cancel(id)
    }

    fn call(&self, mut calls: Vec<Invocation>) -> Vec<Outcome> {
        let answers = match calls.len() {
            1 => vec![actors::call(&invocation(calls.remove(0)))],
            _ => {
                let calls: Vec<_> = calls.into_iter().map(invocation).collect();
                actors::call_all(&calls)
            }
        };
        let answers = answers.into_iter();
        answers.map(|answer| answer.map_err(failure)).collect()
    }

    fn send(&self, call: Invocation) -> Result<(), Failure> {
        actors::send(&invocation(call)).map_err(failure)
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn clock(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

fn invocation(call: Invocation) -> actors::Invocation {
    actors::Invocation {
        to: types::ActorRef {
            actor: call.actor,
            id: call.id,
        },
        method: call.method,
        input: call.input,
        key: call.key,
        timeout_ms: call.timeout_ms,
    }
}

fn failure(failure: types::Failure) -> Failure {
    let mut converted = Failure::new(failure.code);
    if let Some(message) = failure.message {
        converted = converted.message(message);
    }
    if let Some(Ok(serde_json::Value::Object(params))) =
        failure.params.map(|params| serde_json::from_str(&params))
    {
        for (name, value) in params {
            converted = converted.param(name, value);
        }
    }
    match failure.http_status {
        Some(status) => converted.status(status),
        None => converted,
    }
}

/// The failure as the contract has it.
pub(crate) fn contract_failure(failure: Failure) -> types::Failure {
    let params = failure.params();
    types::Failure {
        code: failure.code().to_owned(),
        message: failure.own_message().map(str::to_owned),
        params: (!params.is_empty()).then(|| serde_json::Value::Object(params.clone()).to_string()),
        http_status: failure.http_status(),
    }
}

/// The client as handlers have it.
pub(crate) fn client(client: types::Client) -> Client {
    Client {
        connection: client.connection,
        user: client.user,
    }
}

/// The turn as handlers have it.
pub(crate) fn turn(turn: types::Turn) -> Turn {
    let origin = match turn.origin {
        types::Origin::Client(caller) => Origin::Client(client(caller)),
        types::Origin::Actor(caller) => Origin::Actor {
            actor: caller.actor,
            id: caller.id,
        },
        types::Origin::Timer(firing) => Origin::Timer(Firing::new(firing.id, firing.due_ms)),
        types::Origin::Cron(firing) => Origin::Cron(Firing::new(firing.id, firing.due_ms)),
        types::Origin::Host => Origin::Host,
    };
    Turn {
        actor: turn.this.actor,
        actor_id: turn.this.id,
        turn_id: turn.turn_id,
        origin,
        now: turn.now_ms,
        deadline: turn.deadline_ms,
        attempt: turn.attempt,
        key: turn.key,
        traceparent: turn.traceparent,
    }
}
