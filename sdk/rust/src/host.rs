//! What a turn asks of whoever runs it: the trait behind [`Context`](crate::Context),
//! [`Tracked`](crate::Tracked) and [`Live`](crate::Live). In a component it is the host ([`imports`](crate::imports)),
//! in native tests an in-memory recorder ([`test`](crate::test)). Both keep the promises of
//! `wit/actor.wit`; nothing else of the SDK knows which one it talks to.

use std::time::Duration;

use crate::Failure;
use crate::actor::Outcome;

/// The imports of a handler, as far as the SDK uses them.
pub(crate) trait Host {
    /// Names the content of the state as the turn sees it now.
    fn token(&self) -> u64;
    /// The whole state.
    fn read(&self) -> String;
    /// Stages a whole new state and returns its token.
    fn replace(&self, doc: &str) -> Result<u64, Failure>;
    /// The value at a pointer.
    fn get(&self, pointer: &str) -> Option<String>;
    /// Stages one change.
    fn patch(&self, op: Op<'_>) -> Result<(), Failure>;
    /// Stages an event.
    fn emit(&self, event: &str, payload: &str, to: &Audience) -> Result<(), Failure>;
    /// The open connections that have had contact with the actor.
    fn connections(&self) -> Vec<String>;
    /// Whether the caller has cancelled, or is gone.
    fn cancelled(&self) -> bool;
    /// Declares that what is staged is fit to be seen.
    fn checkpoint(&self, when: Flush) -> Result<(), Failure>;
    /// Sends a part of the result to the caller.
    fn chunk(&self, payload: &str) -> Result<(), Failure>;
    /// Stages a timer and returns its id.
    fn set_timer(&self, timer: NewTimer) -> Result<u64, Failure>;
    /// Stages the cancelling of a timer; whether there is one.
    fn cancel_timer(&self, id: u64) -> bool;
    /// Makes calls at once and waits for all: one outcome for each, in their order.
    fn call(&self, calls: Vec<Invocation>) -> Vec<Outcome>;
    /// Stages a call that nobody waits for.
    fn send(&self, call: Invocation) -> Result<(), Failure>;
    /// Waits so long.
    fn sleep(&self, duration: Duration);
    /// The time since some moment of the past.
    fn clock(&self) -> Duration;
}

/// When what is staged becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// At the next tick of a streaming method.
    Due,
    /// Before the call returns.
    Now,
}

/// A call of an actor to one of its own methods, later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTimer {
    /// From now until it fires first, and from then on until it fires again.
    pub(crate) ms: u64,
    /// It fires again.
    pub(crate) repeats: bool,
    pub(crate) method: &'static str,
    pub(crate) input: Option<String>,
    /// It does not by itself keep the actor in memory.
    pub(crate) idle: bool,
    /// It survives that the actor leaves memory.
    pub(crate) outlive: bool,
}

/// A call to an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) actor: String,
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) input: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) timeout_ms: Option<u64>,
}

/// A change to one place of the state. Places are JSON pointers, values JSON text.
pub(crate) enum Op<'a> {
    Add { pointer: &'a str, value: &'a str },
    Replace { pointer: &'a str, value: &'a str },
    Remove { pointer: &'a str },
    Append { pointer: &'a str, text: &'a str },
}

/// Which of the event subscribers get an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    Everyone,
    Only(Vec<String>),
    Except(Vec<String>),
}
