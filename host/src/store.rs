//! What must last: the state of actors while they are not in memory.
//!
//! `turn` commits here before anything of a turn leaves the host; `actor` loads from here
//! and hands back what leaves memory. The trait is what a durable store will implement;
//! [`Memory`] keeps everything in this process and forgets it with the process.

use std::collections::{BinaryHeap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_core::{ActorKey, Name, PatchOp};

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
    /// Timers that survive deactivation.
    pub timers: Vec<StoredTimer>,
}

/// A timer as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTimer {
    /// Its id.
    pub id: u64,
    /// The rest.
    pub timer: Timer,
}

/// One timer.
#[derive(Clone, Debug, PartialEq)]
pub struct Timer {
    /// The method that it calls.
    pub method: Name,
    /// With this input.
    pub input: Option<Arc<str>>,
    /// When it is due, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// How often it is due again.
    pub every_ms: Option<u64>,
    /// It does not by itself keep the actor in memory.
    pub idle: bool,
    /// It survives deactivation.
    pub outlive: bool,
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
    /// Forgets an actor. True if it was there.
    fn remove<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, bool>;
    /// The keys of stored actors, of one type or of all, behind `after`, in the order of
    /// keys and at most so many.
    fn list<'a>(&'a self, listing: &'a Listing) -> Later<'a, Vec<ActorKey>>;
}

/// Which actors to list.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Of this actor type only.
    pub actor: Option<String>,
    /// Those whose id begins so.
    pub prefix: String,
    /// Those behind this key, which need not exist.
    pub after: Option<ActorKey>,
    /// At most so many.
    pub limit: usize,
}

impl Listing {
    /// Whether a key is among those that are asked for, but for the number.
    pub fn takes(&self, key: &ActorKey) -> bool {
        self.actor
            .as_deref()
            .is_none_or(|actor| actor == key.actor.as_str())
            && key.id.as_str().starts_with(&self.prefix)
            && self.after.as_ref().is_none_or(|after| key > after)
    }

    /// The first ones of these keys, in order. Holds no more than the limit at a time.
    pub fn select<'k>(&self, keys: impl Iterator<Item = &'k ActorKey>) -> Vec<ActorKey> {
        let mut first = BinaryHeap::new();
        for key in keys.filter(|key| self.takes(key)) {
            if first.len() < self.limit {
                first.push(key);
            } else if first.peek().is_some_and(|last| *last > key) {
                first.pop();
                first.push(key);
            }
        }
        first.into_sorted_vec().into_iter().cloned().collect()
    }
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

    fn remove<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, bool> {
        let removed = self.lock().remove(actor).is_some();
        Box::pin(std::future::ready(Ok(removed)))
    }

    fn list<'a>(&'a self, listing: &'a Listing) -> Later<'a, Vec<ActorKey>> {
        let first = listing.select(self.lock().keys());
        Box::pin(std::future::ready(Ok(first)))
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
