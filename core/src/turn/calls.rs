//! Calls of other actors: what one says, and the failures of those that are not made.

use std::fmt::Display;

use crate::failure::{Failure, code};

/// How deep calls between actors may nest, where nobody says otherwise.
pub const MAX_DEPTH: u32 = 16;

/// A call or mail of a handler to an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The actor type, as the guest spells it.
    pub actor: String,
    /// The actor's id.
    pub id: String,
    /// The method.
    pub method: String,
    /// Its input.
    pub input: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
    /// How long to wait.
    pub timeout_ms: Option<u64>,
}

/// `call.depth-limit`
pub fn too_deep(limit: u32) -> Failure {
    Failure::host(code::CALL_DEPTH_LIMIT)
        .message(format!("calls of actors nest deeper than {limit}"))
        .param("limit", limit)
}

/// `call.deadlock`: the called actor waits for the caller already.
pub fn deadlock(called: impl Display, caller: impl Display) -> Failure {
    Failure::host(code::CALL_DEADLOCK).message(format!(
        "{called} waits for {caller}, which would wait for it"
    ))
}

/// `call.timeout`
pub fn timed_out() -> Failure {
    Failure::host(code::CALL_TIMEOUT).message("the called actor did not answer in time")
}

/// `call.slow-consumer`: the caller has not read a part of the result in time.
pub fn slow_consumer() -> Failure {
    Failure::host(code::CALL_SLOW_CONSUMER)
        .message("the caller does not read what the method streams to it")
}
