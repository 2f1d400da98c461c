//! Which component instances stay in memory: up to a bound, those that chance spares.
//!
//! An actor parks its instance here after each turn. Dropping an instance loses nothing
//! (guest memory is a cache), so the bound may be small. When there are too many, any one
//! goes: to drop the one that was used least recently would drop every instance just before
//! its turn where more actors than fit take turns in a round, as timers make them do. Of two
//! one goes that is of the newcomer's own component, so that a component that makes ever new ones
//! makes room among its own.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use indexmap::IndexMap;
use tidegate_base::metrics::Count;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_engine::Instance;

use super::activation::Activation;

/// No component has this serial number.
pub(super) const NONE: u64 = u64::MAX;

pub(super) struct Instances {
    bound: usize,
    parked: Mutex<Parked>,
    evicted: Count,
}

struct Parked {
    actors: IndexMap<u64, One>,
    chance: u64,
}

struct One {
    actor: Weak<Activation>,
    /// The component of its instance, by serial number.
    of: u64,
}

impl Parked {
    /// One of those that are parked, as chance has it (xorshift64, Marsaglia 2003).
    fn any(&mut self) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance % self.actors.len().max(1) as u64) as usize
    }

    /// One that is to go for an instance of this component.
    fn goes_for(&mut self, component: u64) -> usize {
        let first = self.any();
        let is_own = self
            .actors
            .get_index(first)
            .is_some_and(|(_, one)| one.of == component);
        match is_own {
            true => first,
            false => self.any(),
        }
    }

    fn take(&mut self, place: usize) -> Option<Weak<Activation>> {
        let taken = self.actors.swap_remove_index(place);
        taken.map(|(_, one)| one.actor)
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
        self.parked.lock()
    }

    /// Notes that an actor has an instance of this component, which it has by now; drops that of
    /// another, if there are too many.
    pub(super) fn used(&self, actor: &Arc<Activation>, of: u64) {
        // After nearly each turn. Whoever is about to take the instance of an actor that was let go
        // has unset it before, so that either this sees it or they find the instance.
        if actor.parked_of.load(Ordering::Acquire) == of {
            return;
        }
        let evicted = {
            let mut parked = self.lock();
            actor.parked_of.store(of, Ordering::Release);
            if let Some(one) = parked.actors.get_mut(&actor.serial) {
                // Another component serves it now.
                one.of = of;
                return;
            }
            let evicted = match parked.actors.len() >= self.bound {
                true => {
                    let place = parked.goes_for(of);
                    parked.take(place)
                }
                false => None,
            };
            let one = One {
                actor: Arc::downgrade(actor),
                of,
            };
            parked.actors.insert(actor.serial, one);
            evicted
        };
        self.drop_of(evicted);
    }

    /// Drops some, because there is no memory for another one; false when there are none.
    pub(super) fn evict_some(&self, at_most: usize) -> bool {
        let some = self.lock().actors.len().min(at_most);
        for _ in 0..some {
            let evicted = {
                let mut parked = self.lock();
                let place = parked.any();
                parked.take(place)
            };
            self.drop_of(evicted);
        }
        some > 0
    }

    fn drop_of(&self, evicted: Option<Weak<Activation>>) {
        let Some(actor) = evicted.and_then(|actor| actor.upgrade()) else {
            return;
        };
        actor.parked_of.store(NONE, Ordering::Release);
        if let Some(instance) = actor.take_instance() {
            self.evicted.inc();
            drop::<Box<Instance>>(instance);
        }
    }

    /// Forgets an actor that leaves memory.
    pub(super) fn forget(&self, actor: &Activation) {
        let mut parked = self.lock();
        actor.parked_of.store(NONE, Ordering::Release);
        parked.actors.swap_remove(&actor.serial);
    }
}

/// How many instances give way at once to one that finds no more of the guests' memory. It asks
/// again where that is not enough, and to drop many takes long.
pub(super) const A_FEW: usize = 4;
/// How many give way where the system has no more memory, and it is asked once.
pub(super) const MANY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_ever_new_ones_makes_room_among_its_own() {
        let mut parked = Parked {
            actors: IndexMap::new(),
            chance: 1,
        };
        let one = |of| One {
            actor: Weak::new(),
            of,
        };
        (0..50).for_each(|serial| drop(parked.actors.insert(serial, one(1))));
        (50..1_000).for_each(|serial| drop(parked.actors.insert(serial, one(2))));
        for serial in 1_000..10_000 {
            let place = parked.goes_for(2);
            parked.take(place);
            parked.actors.insert(serial, one(2));
        }
        let left = parked.actors.values().filter(|one| one.of == 1);
        // By chance alone nearly all would have gone.
        assert!(left.count() >= 20);
        assert_eq!(parked.actors.len(), 1_000);
    }
}
