//! Between the contract's types and the project's own.

use std::sync::Arc;

use tidegate_core::call::{Firing, Origin};
use tidegate_core::turn::Invocation;
use tidegate_core::turn::state::Spelled;
use tidegate_core::{ActorKey, Failure};

use crate::bindings::exports::tidegate::realtime::{actors as wit_actors, state as wit_state};
use crate::bindings::tidegate::realtime::types as wit;

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> Self {
        wit::Failure {
            code: failure.code.into_owned(),
            message: failure.message,
            params: failure.params.map(|params| params.to_string()),
            http_status: Some(failure.status),
        }
    }
}

impl From<wit::Failure> for Failure {
    fn from(failure: wit::Failure) -> Self {
        Failure::from_guest(
            failure.code,
            failure.message,
            failure.params,
            failure.http_status,
        )
    }
}

impl From<&ActorKey> for wit::ActorRef {
    fn from(key: &ActorKey) -> Self {
        wit::ActorRef {
            actor: key.actor.to_string(),
            id: key.id.to_string(),
        }
    }
}

impl From<&Origin> for wit::Origin {
    fn from(origin: &Origin) -> Self {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let firing = |firing: &Firing| wit::Firing {
            id: firing.id,
            due_ms: firing.due_ms,
        };
        match origin {
            Origin::Client(client) => wit::Origin::Client(wit::Client {
                connection: text(&client.connection),
                user: text(&client.user),
            }),
            Origin::Actor(key) => wit::Origin::Actor(key.into()),
            Origin::Timer(timer) => wit::Origin::Timer(firing(timer)),
            Origin::Cron(schedule) => wit::Origin::Cron(firing(schedule)),
            Origin::Host => wit::Origin::Host,
        }
    }
}

impl From<wit_actors::Invocation> for Invocation {
    fn from(call: wit_actors::Invocation) -> Self {
        Invocation {
            actor: call.to.actor,
            id: call.to.id,
            method: call.method,
            input: call.input,
            key: call.key,
            timeout_ms: call.timeout_ms,
        }
    }
}

/// What an operation weighs, in bytes.
pub(crate) fn cost(op: &wit_state::Op) -> usize {
    match op {
        wit_state::Op::Add(entry) => Spelled::Add(&*entry.pointer, &*entry.value),
        wit_state::Op::Replace(entry) => Spelled::Replace(&*entry.pointer, &*entry.value),
        wit_state::Op::Remove(pointer) => Spelled::Remove(&**pointer),
        wit_state::Op::Append(tail) => Spelled::Append(&*tail.pointer, &*tail.text),
    }
    .cost()
}

/// An operation as the rules of a turn have it.
pub(crate) fn spelled(op: wit_state::Op) -> Spelled<String> {
    match op {
        wit_state::Op::Add(entry) => Spelled::Add(entry.pointer, entry.value),
        wit_state::Op::Replace(entry) => Spelled::Replace(entry.pointer, entry.value),
        wit_state::Op::Remove(pointer) => Spelled::Remove(pointer),
        wit_state::Op::Append(tail) => Spelled::Append(tail.pointer, tail.text),
    }
}
