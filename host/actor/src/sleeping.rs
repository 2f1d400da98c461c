//! Actors that are not in memory and are to come back by themselves: when, and by which clock.
//!
//! What is stored of a timer is a moment of the wall clock, for the sake of the next process. An
//! actor that has left memory in this one comes back when the span has passed, whatever becomes
//! of the wall clock meanwhile.

use std::collections::HashMap;

use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_base::timer::{Alarm, Due};
use tidegate_core::ActorKey;
use tidegate_core::turn::{Stored, StoredTimer};

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

fn key_of(actor: &ActorKey) -> TimerKey {
    TimerKey {
        actor: actor.clone(),
        which: Which::Wake,
    }
}

/// The actors that sleep.
#[derive(Default)]
pub(super) struct Sleeping(Mutex<HashMap<ActorKey, (Wake, Alarm)>>);

impl Sleeping {
    fn sleeping(&self) -> MutexGuard<'_, HashMap<ActorKey, (Wake, Alarm)>> {
        self.0.lock()
    }

    /// Sets what wakes an actor, in the place of what was to wake it.
    pub(super) fn set(&self, actor: &ActorKey, wake: Wake, clock: &Clock) {
        self.replace(actor, |_| wake, |due| clock.set(due, key_of(actor)));
    }

    /// Wakes it once more when the process's own clock shows this.
    pub(super) fn set_again(&self, actor: &ActorKey, steady_ms: u64, clock: &Clock) {
        let wake = Wake::after(steady_ms);
        let wake = |known: Option<&Wake>| known.map_or(wake, |known| wake.like(known));
        self.replace(actor, wake, |due| clock.set(due, key_of(actor)));
    }

    fn replace(
        &self,
        actor: &ActorKey,
        wake: impl FnOnce(Option<&Wake>) -> Wake,
        set: impl FnOnce(Due) -> Alarm,
    ) {
        let before = {
            let mut sleeping = self.sleeping();
            let wake = wake(sleeping.get(actor).map(|(known, _)| known));
            // Under the lock: it may ring at once, and what is set then is not to be replaced by it.
            let alarm = set(wake.due);
            sleeping.insert(actor.clone(), (wake, alarm))
        };
        drop(before);
    }

    /// Nothing is to wake these.
    pub(super) fn remove_all(&self, which: impl Fn(&ActorKey) -> bool) {
        let removed: Vec<_> = self.sleeping().extract_if(|key, _| which(key)).collect();
        // Their alarms are taken back outside of the lock.
        drop(removed);
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
    use std::sync::{Arc, OnceLock, mpsc};
    use std::time::Duration;

    use tidegate_base::timer::Timers;
    use tidegate_core::{ActorId, Name};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_that_is_refused_as_soon_as_it_is_set_rings_again() {
        let sleeping: Arc<Sleeping> = Arc::default();
        let clock: Arc<OnceLock<Clock>> = Arc::default();
        let (rung, rings) = mpsc::channel();
        let (noted, notes) = mpsc::channel();
        let (sleeps, clocked) = (sleeping.clone(), clock.clone());
        let timers = Timers::start(move |key: TimerKey, _| {
            rung.send(()).unwrap();
            let clock = clocked.wait();
            sleeps.set_again(&key.actor, clock.steady_ms() + 1, clock);
            // Nobody hears it where the test is over.
            let _ = noted.send(());
        });
        let clock = clock.get_or_init(|| Arc::new(timers));
        let actor = ActorKey {
            actor: Name::parse("a").unwrap(),
            id: ActorId::parse("1").unwrap(),
        };
        let set = |due| {
            let alarm = clock.set(due, key_of(&actor));
            // It rings before it is noted, and what that sets is noted no earlier.
            rings.recv().unwrap();
            let early = notes.recv_timeout(Duration::from_millis(50));
            assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
            alarm
        };
        tokio::task::block_in_place(|| {
            sleeping.replace(&actor, |_| Wake::at(0), set);
            let again = rings.recv_timeout(Duration::from_secs(20));
            assert_eq!(again, Ok(()), "it is never woken");
        });
        sleeping.remove(&actor);
    }
}
