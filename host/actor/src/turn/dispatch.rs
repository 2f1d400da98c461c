//! What a turn reaches outside its own actor: other actors, its caller, the clock.
//!
//! `actor` implements [`Dispatch`]; a [`Stage`](super::Stage) holds it for its turn.

use std::sync::Arc;
use std::time::Instant;

use tidegate_core::ActorKey;
use tidegate_engine::{CallResult, Invocation, Pending};
use tidegate_store::Sent;

/// The way from one actor to others.
pub trait Dispatch: Send + Sync + 'static {
    /// Calls and waits.
    fn call(&self, from: Caller, call: Invocation) -> Pending<CallResult>;
    /// Delivers what a turn has sent, now that it has committed; nobody waits.
    fn deliver(&self, from: &ActorKey, sent: Arc<Sent>);
}

/// Which actor calls, and within what.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The actor.
    pub actor: ActorKey,
    /// How many calls of actors lie behind it.
    pub depth: u32,
    /// When its turn ends at the latest.
    pub deadline: Instant,
    /// Its trace context.
    pub traceparent: Option<Arc<str>>,
}
