//! The host's alarm clock: one task for all timers, whatever they stand for.
//!
//! `actor` sets alarms for what its actors have asked for and is called back when they are
//! due. This module knows nothing of actors: a key goes in, and comes out at its time.
//!
//! Invariant: an alarm rings once, never before the wall clock shows its time, and not at
//! all when it was dropped before. What is dropped leaves nothing behind.
//!
//! Alarms stand in one map, ordered by time and then by setting, behind one lock. Measured
//! by `host/examples/timer_cost.rs` with 100 000 timers, in ns each (medians of four runs on
//! two busy cores):
//!
//! | | set | cancel | take when due |
//! |---|---|---|---|
//! | this module: lock, map and task | 564 | 432 | 263 |
//! | a bare `BTreeMap` | 351 | 467 | 125 |
//! | a bare `BinaryHeap` | 14 | - | 387 |
//! | a bare `DelayQueue` (a wheel) | 238 | 332 | 598 |
//!
//! The heap cannot take out what is cancelled; the wheel keeps no order within a
//! millisecond, reaches two years ahead, and does not follow a wall clock that is set.
//!
//! **The wall clock may be set.** A time is a moment of the wall clock, because it outlives
//! the process that set it. The clock is read again after every second of waiting: when it
//! jumps forward, what has become due rings within that second; when it jumps back, alarms
//! wait until it shows their time again.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::clock::WallClock;

/// The longest wait between two looks at the wall clock.
const LOOK: Duration = Duration::from_secs(1);
/// How many alarms ring before other tasks get their turn.
const BATCH: usize = 64;

/// A handle to the clock. The clock stops with its last handle.
pub struct Timers<K> {
    clock: Arc<Running<K>>,
}

impl<K> Clone for Timers<K> {
    fn clone(&self) -> Self {
        Timers {
            clock: self.clock.clone(),
        }
    }
}

impl<K> fmt::Debug for Timers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<K> Timers<K> {
    /// How many alarms are set.
    pub fn len(&self) -> usize {
        self.clock.alarms.lock().waiting.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its wall clock shows, in milliseconds since 1970 began (UTC).
    pub fn now_ms(&self) -> u64 {
        self.clock.wall.now_ms()
    }
}

impl<K: Send + 'static> Timers<K> {
    /// Starts the clock. `on_due` gets the key and the time of each alarm that is due, in
    /// the order of their times, and those of one time in the order in which they were set.
    /// All alarms wait for it, so it must be quick.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(on_due: impl Fn(K, u64) + Send + Sync + 'static) -> Timers<K> {
        Timers::start_on(WallClock::default(), on_due)
    }

    /// The same on another wall clock.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start_on(wall: WallClock, on_due: impl Fn(K, u64) + Send + Sync + 'static) -> Timers<K> {
        let alarms = Arc::new(Alarms {
            inner: Mutex::new(Inner {
                waiting: BTreeMap::new(),
                next: 0,
                stopped: false,
            }),
            sooner: Notify::new(),
        });
        let task = tokio::spawn(ring(alarms.clone(), wall.clone(), on_due));
        Timers {
            clock: Arc::new(Running {
                alarms,
                wall,
                task: task.abort_handle(),
            }),
        }
    }

    /// Sets an alarm for a moment, in milliseconds since 1970 began (UTC). A moment that
    /// has passed is due at once.
    pub fn set(&self, due_ms: u64, key: K) -> Alarm {
        let alarms = &self.clock.alarms;
        let mut inner = alarms.lock();
        let place = (due_ms, inner.next);
        inner.next += 1;
        inner.waiting.insert(place, key);
        let is_first = inner.waiting.first_key_value().map(|(place, _)| *place) == Some(place);
        drop(inner);
        if is_first {
            alarms.sooner.notify_one();
        }
        let alarms: Weak<Alarms<K>> = Arc::downgrade(alarms);
        Alarm { place, alarms }
    }
}

/// An alarm that is set. Dropping it cancels it: what has not begun to ring by then never
/// does.
#[must_use = "an alarm that is dropped does not ring"]
pub struct Alarm {
    place: Place,
    alarms: Weak<dyn Cancel>,
}

impl Alarm {
    /// When it is due, in milliseconds since 1970 began.
    pub fn due_ms(&self) -> u64 {
        self.place.0
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm")
            .field("due_ms", &self.due_ms())
            .finish_non_exhaustive()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(alarms) = self.alarms.upgrade() {
            alarms.cancel(self.place);
        }
    }
}

/// When an alarm is due, and how many were set before it.
type Place = (u64, u64);

struct Alarms<K> {
    inner: Mutex<Inner<K>>,
    /// The first alarm is another, earlier one.
    sooner: Notify,
}

struct Inner<K> {
    waiting: BTreeMap<Place, K>,
    next: u64,
    /// No handle is left.
    stopped: bool,
}

impl<K> Alarms<K> {
    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        // Nothing that can panic runs under the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first alarm if it is due, else says when the first one is.
    fn take_due(&self, now: Duration) -> Next<K> {
        let mut inner = self.lock();
        if inner.stopped {
            return Next::Nothing;
        }
        match inner.waiting.first_entry() {
            None => Next::Nothing,
            Some(first) => {
                let due_ms = first.key().0;
                match Duration::from_millis(due_ms).checked_sub(now) {
                    None | Some(Duration::ZERO) => Next::Due(first.remove(), due_ms),
                    Some(left) => Next::In(left),
                }
            }
        }
    }
}

enum Next<K> {
    Due(K, u64),
    In(Duration),
    Nothing,
}

/// Taking an alarm back, whatever its key is.
trait Cancel: Send + Sync {
    fn cancel(&self, place: Place);
}

impl<K: Send> Cancel for Alarms<K> {
    fn cancel(&self, place: Place) {
        let key = self.lock().waiting.remove(&place);
        // Its destructor is somebody else's code, which runs without the lock.
        drop(key);
    }
}

/// The task, as long as somebody has a handle.
struct Running<K> {
    alarms: Arc<Alarms<K>>,
    wall: WallClock,
    task: AbortHandle,
}

impl<K> Drop for Running<K> {
    fn drop(&mut self) {
        let mut inner = self.alarms.lock();
        inner.stopped = true;
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        drop(waiting);
        self.task.abort();
    }
}

async fn ring<K: Send + 'static>(
    alarms: Arc<Alarms<K>>,
    wall: WallClock,
    on_due: impl Fn(K, u64) + Send + Sync + 'static,
) {
    let sleeps = wall.sleeps();
    let mut rung = 0;
    loop {
        match alarms.take_due(wall.now()) {
            Next::Due(key, due_ms) => {
                // One alarm that goes wrong must not silence all others.
                if catch_unwind(AssertUnwindSafe(|| on_due(key, due_ms))).is_err() {
                    tracing::error!(due_ms, "what a timer was set for has panicked");
                }
                rung += 1;
                if rung % BATCH == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Next::In(left) => {
                tokio::select! {
                    () = sleeps.pause(left.min(LOOK)) => {}
                    () = alarms.sooner.notified() => {}
                }
            }
            Next::Nothing => alarms.sooner.notified().await,
        }
    }
}

#[cfg(test)]
mod tests;
