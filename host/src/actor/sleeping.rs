//! Actors that are not in memory and are to come back by themselves: when, and by which clock.
//!
//! What is stored of a timer is a moment of the wall clock, for the sake of the next process. An
//! actor that has left memory in this one comes back when the span has passed, whatever becomes
//! of the wall clock meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_core::ActorKey;

use crate::store::{Stored, StoredTimer};
use crate::timer::{Alarm, Due};
use crate::turn::{Clock, TimerKey, Which};

/// When an actor is to come into memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wake {
    due: Due,
    /// How far the wall clock was ahead of the process's own when the actor's timers were stored;
    /// none where one of them is of another process.
    ahead_ms: Option<i64>,
}

impl Wake {
    /// At a moment of the wall clock.
    pub(super) fn at(due_ms: u64) -> Wake {
        Wake {
            due: Due::Moment(due_ms),
            ahead_ms: None,
        }
    }

    /// When the process's own clock shows this.
    pub(super) fn after(steady_ms: u64) -> Wake {
        Wake {
            due: Due::Steady(steady_ms),
            ahead_ms: None,
        }
    }

    /// When the first of these is due.
    pub(super) fn of_timers(timers: &[StoredTimer]) -> Option<Wake> {
        let first = timers.iter().min_by_key(|stored| stored.timer.due_ms)?;
        let first = &first.timer;
        let is_span = |stored: &StoredTimer| stored.timer.steady_ms.is_some();
        Some(match first.steady_ms {
            Some(steady_ms) => Wake {
                due: Due::Steady(steady_ms),
                ahead_ms: timers
                    .iter()
                    .all(is_span)
                    .then(|| first.due_ms as i64 - steady_ms as i64),
            },
            None => Wake::at(first.due_ms),
        })
    }

    /// This one, of an actor whose timers are those of the other.
    pub(super) fn like(self, timers: &Wake) -> Wake {
        Wake {
            ahead_ms: timers.ahead_ms,
            ..self
        }
    }

    /// The moment, where the wall clock is so far ahead.
    pub(super) fn due_ms(&self, ahead_ms: i64) -> u64 {
        match self.due {
            Due::Steady(ms) => ms.saturating_add_signed(ahead_ms),
            Due::Moment(ms) | Due::Calendar(ms) => ms,
        }
    }
}

/// The actors that sleep.
#[derive(Default)]
pub(super) struct Sleeping(Mutex<HashMap<ActorKey, (Wake, Alarm)>>);

impl Sleeping {
    fn sleeping(&self) -> MutexGuard<'_, HashMap<ActorKey, (Wake, Alarm)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what wakes an actor, in the place of what was to wake it.
    pub(super) fn set(&self, actor: &ActorKey, wake: Wake, clock: &Clock) {
        self.replace(actor, clock, |_| wake);
    }

    /// Wakes it once more when the process's own clock shows this.
    pub(super) fn set_again(&self, actor: &ActorKey, steady_ms: u64, clock: &Clock) {
        let wake = Wake::after(steady_ms);
        self.replace(actor, clock, |known| {
            known.map_or(wake, |known| wake.like(known))
        });
    }

    fn replace(&self, actor: &ActorKey, clock: &Clock, wake: impl FnOnce(Option<&Wake>) -> Wake) {
        let key = TimerKey {
            actor: actor.clone(),
            which: Which::Wake,
        };
        let before = {
            let mut sleeping = self.sleeping();
            let wake = wake(sleeping.get(actor).map(|(known, _)| known));
            // Under the lock: it may ring at once, and what is set then is not to be replaced by it.
            let alarm = clock.set(wake.due, key);
            sleeping.insert(actor.clone(), (wake, alarm))
        };
        drop(before);
    }

    /// Nothing is to wake it.
    pub(super) fn remove(&self, actor: &ActorKey) {
        let removed = self.sleeping().remove(actor);
        drop(removed);
    }

    /// Gives the timers of an actor that comes back the spans that they were set for, if this
    /// process has set them.
    pub(super) fn restore(&self, actor: &ActorKey, stored: &mut Stored) {
        let ahead_ms = self
            .sleeping()
            .get(actor)
            .and_then(|(wake, _)| wake.ahead_ms);
        let Some(ahead_ms) = ahead_ms else {
            return;
        };
        for StoredTimer { timer, .. } in &mut stored.timers {
            timer.steady_ms = Some(
                timer
                    .due_ms
                    .saturating_add_signed(ahead_ms.saturating_neg()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use tidegate_core::{ActorId, Name};

    use super::*;
    use crate::timer::Timers;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_that_is_refused_as_soon_as_it_is_set_rings_again() {
        const ACTORS: usize = 20_000;
        let sleeping: Arc<Sleeping> = Arc::default();
        let clock: Arc<OnceLock<Clock>> = Arc::default();
        let rung: Arc<Mutex<[HashSet<ActorKey>; 2]>> = Arc::default();
        let (sleeps, clocked, rings) = (sleeping.clone(), clock.clone(), rung.clone());
        let timers = Timers::start(move |key: TimerKey, _| {
            let [first, again] = &mut *rings.lock().unwrap();
            if first.insert(key.actor.clone()) {
                let clock = clocked.wait();
                sleeps.set_again(&key.actor, clock.steady_ms() + 1, clock);
            } else {
                again.insert(key.actor);
            }
        });
        assert!(clock.set(Arc::new(timers)).is_ok());
        for number in 0..ACTORS {
            let actor = ActorKey {
                actor: Name::parse("a").unwrap(),
                id: ActorId::parse(&number.to_string()).unwrap(),
            };
            sleeping.set(&actor, Wake::at(0), clock.wait());
        }
        let all = async {
            while rung.lock().unwrap()[1].len() < ACTORS {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let all = tokio::time::timeout(Duration::from_secs(60), all).await;
        let left = ACTORS - rung.lock().unwrap()[1].len();
        assert!(all.is_ok(), "{left} are never woken");
    }
}
