//! What must last: actors, as their turns have committed them.
//!
//! `turn` commits here, and lets nothing of a turn leave the host before its commit is
//! safe; `actor` loads from here and hands back what leaves memory. [`Durable`] keeps actors
//! in a [journal](tidegate_journal) on disk, [`Memory`] in this process, with which it forgets
//! them.
//!
//! Invariants: what is loaded is the effect of a prefix of an actor's commits, which holds
//! all that were told to be safe; an epoch and a version name one content, also where folders
//! are copied or put back.

mod durable;
mod memory;
mod record;
mod runs;

use std::collections::BinaryHeap;
use std::pin::Pin;

pub use tidegate_base::config::Durability;
pub use tidegate_base::metrics::StoreFigures;
use tidegate_core::ActorKey;

pub use self::durable::{Durable, DurableError, Reading};
pub use self::memory::Memory;
pub use self::record::{
    Answer, Begun, Change, Connected, ConnectionChange, Damaged, Earlier, Outcome, Received, Sent,
    Stored, StoredTimer, Timer, TimerChange,
};

/// What one turn changes.
#[derive(Debug)]
pub struct Commit<'a> {
    /// Whose turn it was.
    pub actor: &'a ActorKey,
    /// What changed.
    pub change: &'a Change,
    /// When it is safe.
    pub durability: Durability,
    /// When the first of the actor's timers is due, with this change.
    pub first_due_ms: Option<u64>,
}

/// What of an actor is stored already; a store keeps it up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of the last whole record; 0 if there is none.
    pub whole: usize,
    /// Bytes of the changes since.
    pub changes: usize,
    /// How many they are.
    pub count: usize,
}

impl Weight {
    /// The same of a record that the next commit writes anew, because it says too little.
    pub fn outdated(self) -> Weight {
        Weight {
            count: usize::MAX,
            ..self
        }
    }
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store is not available: {0}")]
pub struct StoreError(pub String);

/// A result that is there later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The answer to a commit.
pub enum Committed {
    /// It is safe already.
    Now,
    /// It is safe when this completes.
    Later(Later<'static, ()>),
    /// It was not taken, and nothing has changed.
    Refused(StoreError),
}

/// Where actors are kept.
pub trait Store: Send + Sync + 'static {
    /// An actor as it was last committed or retired, and what is stored of it; none if it
    /// never was. One that another run of the store has written goes on in another epoch.
    fn load<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<(Stored, Weight)>>;
    /// What is stored of an actor as it is stored: as it once was, and what has changed since.
    /// None where only the latest is.
    fn history<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<(Stored, Vec<Change>)>>;
    /// Makes one turn safe. Commits of an actor take effect in the order of the calls,
    /// before any is awaited. `whole` is the actor with this change, for a store that
    /// writes it anew now and then. After a failure neither this turn is kept nor any that
    /// was committed behind it, until the actor is loaded again.
    fn commit(
        &self,
        commit: Commit<'_>,
        weight: &mut Weight,
        whole: &dyn Fn() -> Stored,
    ) -> Committed;
    /// Takes an actor that leaves memory. `changed` says that it differs from what was
    /// committed.
    fn retire<'a>(
        &'a self,
        actor: &'a ActorKey,
        stored: Stored,
        changed: bool,
        durability: Durability,
    ) -> Later<'a, ()>;
    /// Forgets an actor. True if it was there.
    fn remove<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, bool>;
    /// The keys of stored actors, of one type or of all, behind `after`, in the order of
    /// keys and at most so many.
    fn list<'a>(&'a self, listing: &'a Listing) -> Later<'a, Vec<ActorKey>>;
    /// The actors that timers are to wake, and when the first of each is due, in
    /// milliseconds since the Unix epoch.
    fn sleeping(&self) -> Vec<(ActorKey, u64)>;
    /// Why it takes nothing any more, if so.
    fn failed(&self) -> Option<String>;
    /// How it is doing, for operators.
    fn figures(&self) -> StoreFigures;
    /// Makes everything safe and takes nothing any more. Blocks.
    fn close(&self);
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
