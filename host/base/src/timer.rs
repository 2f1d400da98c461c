//! The host's alarm clock: one task for all timers, whatever they stand for.
//!
//! `actor` sets alarms for what its actors have asked for and is called back when they are
//! due. This module knows nothing of actors: a key goes in, and comes out at its time.
//!
//! Invariant: an alarm rings once, never before its time, and not at all when it was dropped
//! before. What is dropped leaves nothing behind.
//!
//! Alarms stand in a map for each kind of time, ordered by time and then by setting, behind one
//! lock. Measured
//! by `host/base/examples/timer_cost.rs` with 100 000 timers, in ns each (medians of four runs on
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
//! **The wall clock may be set.** What ends a span of time goes by a clock of the process that
//! nobody sets ([`Due::Steady`]); what outlives the process is a moment of the wall clock
//! ([`Due::Moment`]). That clock is read again after every second of waiting: when it jumps
//! forward, moments that have passed ring within that second; when it jumps back, they wait until
//! it shows their time again, except those of a calendar ([`Due::Calendar`]), which ring to be
//! worked out anew.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::clock::{SteadyClock, WallClock};
use crate::sync::{Mutex, MutexGuard};

/// The longest wait between two looks at the wall clock.
const LOOK: Duration = Duration::from_secs(1);
/// When an alarm rings. Times are in milliseconds since 1970 began (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Due {
    /// When the process's own clock shows this, which shows what the wall clock would if nobody
    /// had set it since the process began.
    Steady(u64),
    /// When the wall clock shows this.
    Moment(u64),
    /// When the wall clock shows this, or at once when that is set back: whoever has set it works
    /// out anew what comes next.
    Calendar(u64),
}

impl Due {
    fn place(self) -> (usize, u64) {
        match self {
            Due::Steady(ms) => (STEADY, ms),
            Due::Moment(ms) => (MOMENT, ms),
            Due::Calendar(ms) => (CALENDAR, ms),
        }
    }
}

/// The places of the kinds of time in tables.
const STEADY: usize = 0;
const MOMENT: usize = 1;
const CALENDAR: usize = 2;
const KINDS: [fn(u64) -> Due; 3] = [Due::Steady, Due::Moment, Due::Calendar];

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
        self.clock
            .alarms
            .lock()
            .waiting
            .iter()
            .map(BTreeMap::len)
            .sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its wall clock shows, in milliseconds since 1970 began (UTC).
    pub fn now_ms(&self) -> u64 {
        self.clock.alarms.steady.wall().now_ms()
    }

    /// What the process's own clock shows, which nobody sets: the same, if nobody has set the wall
    /// clock since the process began.
    pub fn steady_ms(&self) -> u64 {
        self.clock.alarms.steady.now().as_millis() as u64
    }

    /// How far the wall clock is ahead of the process's own, in milliseconds: 0 until somebody
    /// sets it.
    pub fn ahead_ms(&self) -> i64 {
        self.clock.alarms.steady.ahead_ms()
    }
}

impl<K: Send + 'static> Timers<K> {
    /// Starts the clock. `on_due` gets the key and the time of each alarm that is due, the
    /// longest due first, and those of one time in the order in which they were set.
    /// All alarms wait for it, so it must be quick.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(on_due: impl Fn(K, Due) + Send + Sync + 'static) -> Timers<K> {
        Timers::start_on(WallClock::default(), on_due)
    }

    /// Starts the thread that rings, on another wall clock.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start_on(wall: WallClock, on_due: impl Fn(K, Due) + Send + Sync + 'static) -> Timers<K> {
        let alarms = Arc::new(Alarms {
            inner: Mutex::new(Inner {
                waiting: [const { BTreeMap::new() }; KINDS.len()],
                next: 0,
                stopped: false,
            }),
            sooner: Notify::new(),
            steady: SteadyClock::begin(wall),
        });
        let task = tokio::spawn(ring(alarms.clone(), on_due));
        Timers {
            clock: Arc::new(Running {
                alarms,
                task: task.abort_handle(),
            }),
        }
    }

    /// Sets an alarm. A time that has passed is due at once.
    pub fn set(&self, due: Due, key: K) -> Alarm {
        let alarms = &self.clock.alarms;
        let mut inner = alarms.lock();
        let (kind, due_ms) = due.place();
        let place = (due_ms, inner.next);
        inner.next += 1;
        let waiting = &mut inner.waiting[kind];
        waiting.insert(place, key);
        let is_first = waiting.first_key_value().map(|(place, _)| *place) == Some(place);
        drop(inner);
        if is_first {
            alarms.sooner.notify_one();
        }
        let alarms: Weak<Alarms<K>> = Arc::downgrade(alarms);
        Alarm {
            due,
            number: place.1,
            alarms,
        }
    }
}

/// An alarm that is set. Dropping it cancels it: what has not begun to ring by then never
/// does.
#[must_use = "an alarm that is dropped does not ring"]
pub struct Alarm {
    due: Due,
    /// How many were set before it.
    number: u64,
    alarms: Weak<dyn Cancel>,
}

impl Alarm {
    /// When it is due.
    pub fn due(&self) -> Due {
        self.due
    }

    /// How far its wall clock was found to be ahead of the process's own, in milliseconds.
    pub fn ahead_ms(&self) -> i64 {
        self.alarms.upgrade().map_or(0, |alarms| alarms.ahead_ms())
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm")
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(alarms) = self.alarms.upgrade() {
            alarms.cancel(self.due, self.number);
        }
    }
}

/// When an alarm is due, and how many were set before it.
type Place = (u64, u64);

struct Alarms<K> {
    inner: Mutex<Inner<K>>,
    /// The first alarm is another, earlier one.
    sooner: Notify,
    steady: SteadyClock,
}

struct Inner<K> {
    /// By kind of time.
    waiting: [BTreeMap<Place, K>; KINDS.len()],
    next: u64,
    /// No handle is left.
    stopped: bool,
}

impl<K> Alarms<K> {
    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        // Nothing that can panic runs under the lock.
        self.inner.lock()
    }

    /// Takes the alarm that has been due for longest, else says when the first one is.
    fn take_due(&self) -> Next<K> {
        let (steady, wall) = (self.steady.now(), self.steady.wall().now());
        let now = [steady, wall, wall];
        let mut inner = self.lock();
        if inner.stopped {
            return Next::Nothing;
        }
        // How long it is until the first of each kind; what is due has a negative time.
        let firsts = inner.waiting.iter().zip(now).enumerate();
        let first = firsts.filter_map(|(kind, (waiting, now))| {
            let ((due_ms, number), _) = waiting.first_key_value()?;
            let left = i128::from(*due_ms) * NANOS_PER_MS - now.as_nanos() as i128;
            Some((left, *number, kind))
        });
        let Some((left, _, kind)) = first.min() else {
            return Next::Nothing;
        };
        if left > 0 {
            return Next::In(Duration::from_nanos(left.try_into().unwrap_or(u64::MAX)));
        }
        match inner.waiting[kind].pop_first() {
            Some(((due_ms, _), key)) => Next::Due(key, KINDS[kind](due_ms)),
            None => Next::Nothing,
        }
    }

    /// Takes what is to be worked out anew.
    fn take_calendar(&self) -> BTreeMap<Place, K> {
        std::mem::take(&mut self.lock().waiting[CALENDAR])
    }
}

const NANOS_PER_MS: i128 = 1_000_000;

enum Next<K> {
    Due(K, Due),
    In(Duration),
    Nothing,
}

/// Taking an alarm back, whatever its key is.
trait Cancel: Send + Sync {
    fn cancel(&self, due: Due, number: u64);
    fn ahead_ms(&self) -> i64;
}

impl<K: Send> Cancel for Alarms<K> {
    fn cancel(&self, due: Due, number: u64) {
        let (kind, due_ms) = due.place();
        let key = self.lock().waiting[kind].remove(&(due_ms, number));
        // Its destructor is somebody else's code, which runs without the lock.
        drop(key);
    }

    fn ahead_ms(&self) -> i64 {
        self.steady.known_ahead_ms()
    }
}

/// The task, as long as somebody has a handle.
struct Running<K> {
    alarms: Arc<Alarms<K>>,
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
    on_due: impl Fn(K, Due) + Send + Sync + 'static,
) {
    let sleeps = alarms.steady.wall().sleeps();
    let mut rung = 0;
    let mut ahead_ms = alarms.steady.ahead_ms();
    let tell = |key, due| {
        // One alarm that goes wrong must not silence all others.
        if catch_unwind(AssertUnwindSafe(|| on_due(key, due))).is_err() {
            tracing::error!(?due, "what a timer was set for has panicked");
        }
    };
    let mut has_waited = true;
    loop {
        if std::mem::take(&mut has_waited) {
            let now_ahead_ms = alarms.steady.ahead_ms();
            let stepped_ms = now_ahead_ms - std::mem::replace(&mut ahead_ms, now_ahead_ms);
            if stepped_ms != 0 {
                tracing::warn!(stepped_ms, "the wall clock was set");
            }
            if stepped_ms < 0 {
                for ((due_ms, _), key) in alarms.take_calendar() {
                    tell(key, Due::Calendar(due_ms));
                }
            }
        }
        match alarms.take_due() {
            Next::Due(key, due) => {
                tell(key, due);
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
                has_waited = true;
            }
            Next::Nothing => {
                alarms.sooner.notified().await;
                has_waited = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
