//! The actors in memory, by key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_base::budget::Budget;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::ActorKey;

use super::activation::Activation;
use crate::state::BASE_COST;

/// Shards keep look-ups on different cores out of each other's way.
const SHARDS: usize = 32;

#[cfg(not(test))]
type Hasher = tidegate_base::hash::KeyedHash;
/// A simulation takes the same course each time.
#[cfg(test)]
type Hasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

type Shard = HashMap<ActorKey, Arc<Activation>, Hasher>;

/// Whether the limit holds for an actor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It does.
    IfRoom,
    /// It comes in for a moment, to be told of an end.
    Always,
}

pub(super) struct Table {
    limit: usize,
    /// What actors cost is taken from it when they are loaded.
    budget: Arc<Budget>,
    count: AtomicUsize,
    shards: [Mutex<Shard>; SHARDS],
    hasher: Hasher,
}

impl Table {
    pub(super) fn new(limit: usize, budget: Arc<Budget>) -> Table {
        Table {
            limit,
            budget,
            count: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: Hasher::default(),
        }
    }

    fn shard(&self, key: &ActorKey) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index].lock()
    }

    pub(super) fn get(&self, key: &ActorKey) -> Option<Arc<Activation>> {
        self.shard(key).get(key).cloned()
    }

    /// Whether most of the room is taken.
    pub(super) fn is_scarce(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.limit / 4 * 3 || self.budget.is_scarce()
    }

    /// Whether there is room for one more, once there are so many.
    fn has_room(&self, count: usize) -> bool {
        let free = self.budget.limit().saturating_sub(self.budget.used());
        count < self.limit && free >= BASE_COST
    }

    /// The actor, made if need be; none when there are too many.
    pub(super) fn get_or_insert(
        &self,
        key: &ActorKey,
        admission: Admission,
        make: impl FnOnce() -> Arc<Activation>,
    ) -> Option<Arc<Activation>> {
        match self.shard(key).entry(key.clone()) {
            Entry::Occupied(actor) => Some(actor.get().clone()),
            Entry::Vacant(place) => {
                let before = self.count.fetch_add(1, Ordering::Relaxed);
                if !self.has_room(before) && admission == Admission::IfRoom {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return None;
                }
                Some(place.insert(make()).clone())
            }
        }
    }

    /// Removes an actor if it is still the one with this serial number and `ready`, which
    /// is asked while nobody can look the actor up.
    pub(super) fn remove_if(
        &self,
        key: &ActorKey,
        serial: u64,
        ready: impl FnOnce() -> bool,
    ) -> bool {
        let mut shard = self.shard(key);
        if shard.get(key).is_some_and(|actor| actor.serial == serial) && ready() {
            shard.remove(key);
            self.count.fetch_sub(1, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// All actors, as of now, shard by shard.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Activation>> {
        self.shards.iter().flat_map(|shard| {
            let shard = shard.lock();
            shard.values().cloned().collect::<Vec<_>>()
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}
