//! Which component instances stay in memory: up to a bound, those that chance spares.
//!
//! An actor parks its instance here after each turn. Dropping an instance loses nothing
//! (guest memory is a cache), so the bound may be small. When there are too many, any one
//! goes: to drop the one that was used least recently would drop every instance just before
//! its turn where more actors than fit take turns in a round, as timers make them do.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use indexmap::IndexMap;

use super::resident::Actor;
use crate::engine::Instance;
use crate::metrics::Count;

pub(super) struct Instances {
    bound: usize,
    parked: Mutex<Parked>,
    evicted: Count,
}

struct Parked {
    actors: IndexMap<u64, Weak<Actor>>,
    chance: u64,
}

impl Parked {
    /// One of those that are parked, as chance has it (xorshift64, Marsaglia 2003).
    fn any(&mut self) -> Option<Weak<Actor>> {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let place = (self.chance % self.actors.len().max(1) as u64) as usize;
        self.actors.swap_remove_index(place).map(|(_, actor)| actor)
    }
}

impl Instances {
    pub(super) fn new(bound: usize, evicted: Count) -> Instances {
        Instances {
            bound: bound.max(1),
            parked: Mutex::new(Parked {
                actors: IndexMap::new(),
                chance: 0x9e37_79b9_7f4a_7c15,
            }),
            evicted,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an actor has an instance; drops that of another, if there are too many.
    pub(super) fn used(&self, actor: &Actor, weak: Weak<Actor>) {
        let evicted = {
            let mut parked = self.lock();
            if parked.actors.contains_key(&actor.serial) {
                return;
            }
            let evicted = match parked.actors.len() >= self.bound {
                true => parked.any(),
                false => None,
            };
            parked.actors.insert(actor.serial, weak);
            evicted
        };
        self.drop_of(evicted);
    }

    /// Drops some, because there is no memory for another one; false when there are none.
    pub(super) fn evict_some(&self) -> bool {
        let some = self.lock().actors.len().min(EVICTED_AT_ONCE);
        for _ in 0..some {
            let evicted = self.lock().any();
            self.drop_of(evicted);
        }
        some > 0
    }

    fn drop_of(&self, evicted: Option<Weak<Actor>>) {
        let evicted = evicted.and_then(|actor| actor.upgrade());
        if let Some(instance) = evicted.and_then(|actor| actor.take_instance()) {
            self.evicted.inc();
            drop::<Box<Instance>>(instance);
        }
    }

    /// Forgets an actor that leaves memory.
    pub(super) fn forget(&self, serial: u64) {
        self.lock().actors.swap_remove(&serial);
    }
}

/// How many instances give way to one that finds no memory.
const EVICTED_AT_ONCE: usize = 64;
