//! The store that forgets: actors that are not in memory, kept in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_core::ActorKey;

use super::{
    Change, Commit, Committed, Durability, Later, Listing, Store, StoreError, StoreFigures, Stored,
    Weight,
};
use crate::budget::{Budget, Share};

/// Keeps actors in this process. While an actor is in memory its own copy is the only
/// one, so a commit has nothing to do.
pub struct Memory {
    limit: usize,
    /// What they are taken from.
    budget: Arc<Budget>,
    actors: Mutex<HashMap<ActorKey, Kept>>,
}

/// An actor as text.
struct Kept {
    text: Box<str>,
    _share: Share,
}

/// What an actor takes beside its text, in bytes.
const ENTRY_COST: usize = 256;

impl Store for Memory {
    fn load<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<(Stored, Weight)>> {
        let kept = self.lock().get(actor).map(|kept| kept.text.clone());
        Box::pin(std::future::ready(match kept {
            Some(kept) => match Stored::parse(&kept) {
                Ok(stored) => Ok(Some((stored, Weight::default()))),
                Err(damaged) => Err(StoreError(damaged.to_string())),
            },
            None => Ok(None),
        }))
    }

    fn history<'a>(&'a self, _: &'a ActorKey) -> Later<'a, Option<(Stored, Vec<Change>)>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn commit(&self, _: Commit<'_>, _: &mut Weight, _: &dyn Fn() -> Stored) -> Committed {
        Committed::Now
    }

    fn retire<'a>(
        &'a self,
        actor: &'a ActorKey,
        stored: Stored,
        _: bool,
        _: Durability,
    ) -> Later<'a, ()> {
        let mut actors = self.lock();
        let full = actors.len() >= self.limit && !actors.contains_key(actor);
        let result = match full {
            true => Err(StoreError(format!(
                "it holds {} actors already",
                self.limit
            ))),
            false => {
                let text = stored.to_text().into_boxed_str();
                // What it has of the actor is replaced, whatever became of it.
                actors.remove(actor);
                let share = self.budget.share(ENTRY_COST + text.len());
                share
                    .map_err(|exhausted| StoreError(exhausted.to_string()))
                    .map(|share| {
                        let _share = share;
                        drop(actors.insert(actor.clone(), Kept { text, _share }));
                    })
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

    fn sleeping(&self) -> Vec<(ActorKey, u64)> {
        // It begins empty; later on `actor` knows who sleeps.
        Vec::new()
    }

    fn failed(&self) -> Option<String> {
        None
    }

    fn figures(&self) -> StoreFigures {
        StoreFigures {
            is_up: true,
            in_memory: self.lock().len() as u64,
            disk: None,
        }
    }

    fn close(&self) {}
}

impl Memory {
    /// A store that holds at most so many actors that are not in memory.
    pub fn new(limit: usize) -> Memory {
        Memory {
            limit,
            budget: Budget::unlimited(),
            actors: Mutex::default(),
        }
    }

    /// Keeps an actor no longer.
    pub(super) fn forget(&self, actor: &ActorKey) {
        self.lock().remove(actor);
    }

    /// The same, empty, which takes what it holds from this budget.
    pub fn within(self, budget: Arc<Budget>) -> Memory {
        Memory { budget, ..self }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ActorKey, Kept>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
