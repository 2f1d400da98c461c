//! The seam where one concern asks another: traits that the concern implements which can, and that
//! the others hold, so that none imports another.

use std::sync::Arc;
use std::time::Instant;

use tidegate_core::ActorKey;
use tidegate_engine::{CallResult, Invocation, Pending};

/// The way to actors, which `actor` implements.
pub trait CallActors: Send + Sync + 'static {
    /// Calls and waits. The call fails at once where it would wait for its own caller, and when it
    /// nests too deeply; it is given up when the caller's time or its own is over.
    fn call(&self, from: Caller, call: Invocation) -> Pending<CallResult>;
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
