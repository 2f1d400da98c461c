//! The store that forgets: actors that are not in memory, kept in this process.
//!
//! Invariant: an actor that leaves memory for this store finds room here. What it is kept as is
//! smaller than what it gives back next.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_base::budget::{Budget, Share};
use tidegate_base::sync::Mutex;
use tidegate_core::ActorKey;

use super::{
    Change, Commit, Committed, Durability, Later, Listing, Store, StoreError, StoreFigures, Stored,
    Weight,
};

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
                let _share = self.budget.owe(ENTRY_COST + text.len());
                actors.insert(actor.clone(), Kept { text, _share });
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
        self.actors.lock()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::json;
    use tidegate_core::{ActorId, Name};

    use super::*;

    #[test]
    fn an_actor_leaves_memory_also_where_that_is_used_up() {
        let budget = Budget::new("actors", 1 << 20);
        let store = Memory::new(10).within(budget.clone());
        let actor = ActorKey {
            actor: Name::parse("chat").unwrap(),
            id: ActorId::parse("room-1").unwrap(),
        };
        let retire = |text: String| {
            let stored = json!({"epoch": "e", "version": 1, "state": text, "lastTimer": 0});
            let stored = Stored::parse(&stored.to_string()).expect("an actor");
            let retired = store.retire(&actor, stored, true, Durability::None);
            retired.now_or_never().expect("it does not wait")
        };
        // All that there is, a quarter of it by those who hold little.
        let _much = budget.share(3 << 18).unwrap();
        let _little: Vec<Share> = (0..4).map(|_| budget.share(64 << 10).unwrap()).collect();
        let before = budget.used();
        for text in ["x".repeat(100_000), "y".to_owned()] {
            assert!(retire(text.clone()).is_ok());
            let found = store.load(&actor).now_or_never();
            let (stored, _) = found.unwrap().unwrap().expect("it is kept");
            assert_eq!(stored.state.to_text(), json!(text).to_string());
        }
        assert!(budget.used() - before < 2_000, "the first is given back");
        store.forget(&actor);
        assert_eq!(budget.used(), before);
    }
}
