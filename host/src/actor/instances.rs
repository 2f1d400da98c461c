//! Which component instances stay in memory: the most recently used ones, up to a bound.
//!
//! An actor parks its instance here after each turn. Dropping an instance loses nothing
//! (guest memory is a cache), so the bound may be small.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use lru::LruCache;

use super::resident::Actor;
use crate::engine::Instance;
use crate::metrics::Count;

pub(super) struct Instances {
    parked: Mutex<LruCache<u64, Weak<Actor>>>,
    evicted: Count,
}

impl Instances {
    pub(super) fn new(bound: usize, evicted: Count) -> Instances {
        let bound = NonZeroUsize::new(bound).unwrap_or(NonZeroUsize::MIN);
        Instances {
            // Grows as it fills, up to the bound.
            parked: Mutex::new({
                let mut cache = LruCache::unbounded();
                cache.resize(bound);
                cache
            }),
            evicted,
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<u64, Weak<Actor>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an actor's instance was used just now; drops the one that was not for
    /// the longest time, if there are too many.
    pub(super) fn used(&self, actor: &Actor, weak: Weak<Actor>) {
        let evicted = self.lock().push(actor.serial, weak);
        if let Some((serial, evicted)) = evicted
            && serial != actor.serial
            && let Some(evicted) = evicted.upgrade()
            && let Some(instance) = evicted.take_instance()
        {
            self.evicted.inc();
            drop::<Instance>(instance);
        }
    }

    /// Forgets an actor that leaves memory.
    pub(super) fn forget(&self, serial: u64) {
        self.lock().pop(&serial);
    }
}
