//! What must last: the state of actors while they are not in memory.
//!
//! `turn` commits here before anything of a turn leaves the host; `actor` loads from here
//! and hands back what leaves memory. The trait is what a durable store will implement;
//! [`Memory`] keeps everything in this process and forgets it with the process.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_core::{ActorKey, PatchOp};

/// An actor as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The state document as JSON text.
    pub state: String,
    /// Names the history that `version` counts in.
    pub epoch: Arc<str>,
    /// Commits that changed the state since the epoch began.
    pub version: u64,
    /// Open connections that have had contact with the actor, in order of contact, with
    /// the claims of each as JSON.
    pub connections: Vec<(Arc<str>, Option<Arc<str>>)>,
}

/// What one turn changes.
#[derive(Debug)]
pub struct Commit<'a> {
    /// Whose turn it was.
    pub actor: &'a ActorKey,
    /// The history it belongs to.
    pub epoch: &'a Arc<str>,
    /// The version that it makes.
    pub version: u64,
    /// What changed; never empty.
    pub patches: &'a [PatchOp],
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store is not available: {0}")]
pub struct StoreError(pub String);

/// A result that is there later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The answer to a commit.
pub enum Committed<'a> {
    /// It is safe already.
    Now,
    /// It is safe when this completes.
    Later(Later<'a, ()>),
}

/// Where actors are kept.
pub trait Store: Send + Sync + 'static {
    /// An actor as it was last committed or retired; none if it never was.
    fn load<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<Stored>>;
    /// Makes one turn safe. After a failure the turn is certainly not kept.
    fn commit<'a>(&'a self, commit: Commit<'_>) -> Committed<'a>;
    /// Takes an actor that leaves memory, whole.
    fn retire<'a>(&'a self, actor: &'a ActorKey, stored: Stored) -> Later<'a, ()>;
}

/// Keeps actors in this process. While an actor is in memory its own copy is the only
/// one, so a commit has nothing to do.
pub struct Memory {
    limit: usize,
    actors: Mutex<HashMap<ActorKey, Stored>>,
}

impl Store for Memory {
    fn load<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<Stored>> {
        let stored = self.lock().get(actor).cloned();
        Box::pin(std::future::ready(Ok(stored)))
    }

    fn commit<'a>(&'a self, _: Commit<'_>) -> Committed<'a> {
        Committed::Now
    }

    fn retire<'a>(&'a self, actor: &'a ActorKey, stored: Stored) -> Later<'a, ()> {
        let mut actors = self.lock();
        let full = actors.len() >= self.limit && !actors.contains_key(actor);
        let result = match full {
            true => Err(StoreError(format!(
                "it holds {} actors already",
                self.limit
            ))),
            false => {
                actors.insert(actor.clone(), stored);
                Ok(())
            }
        };
        Box::pin(std::future::ready(result))
    }
}

impl Memory {
    /// A store that holds at most so many actors that are not in memory.
    pub fn new(limit: usize) -> Memory {
        Memory {
            limit,
            actors: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ActorKey, Stored>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
