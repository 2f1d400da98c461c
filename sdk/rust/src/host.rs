//! What a turn asks of whoever runs it: the trait behind [`Context`](crate::Context) and
//! [`Tracked`](crate::Tracked). In a component it is the host ([`imports`](crate::imports)),
//! in native tests an in-memory recorder ([`test`](crate::test)). Both keep the promises of
//! `wit/actor.wit`; nothing else of the SDK knows which one it talks to.

use crate::Failure;

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
