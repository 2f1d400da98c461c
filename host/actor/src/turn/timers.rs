//! The timers of one actor: what its turns have set, and which of them are due.
//!
//! The actor's parts hold them; turns stage changes to them, which take effect with the commit.
//! Each is set on the host's clock, which tells `actor` when it is due: what was set in this
//! process after a span of time, what another one has stored at a moment of the wall clock.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tidegate_base::timer::{Alarm, Due, Timers};
use tidegate_core::ActorKey;
use tidegate_core::turn::timers::next_on_grid;
pub(crate) use tidegate_core::turn::{StoredTimer, Timer, TimerChange};

/// The host's clock.
pub type Clock = Arc<Timers<TimerKey>>;

/// Names a timer on the host's clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    /// Whose timer it is.
    pub actor: ActorKey,
    /// Which of the actor's.
    pub which: Which,
}

/// A timer that a turn has set, or a schedule of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// A timer, by its id.
    Timer(u64),
    /// A schedule, by its place among those of the actor type.
    Schedule(usize),
    /// None in particular: the actor is to come into memory, where its timers are set.
    Wake,
}

/// All timers of an actor.
#[derive(Default)]
pub struct ActorTimers {
    timers: BTreeMap<u64, (Timer, Alarm)>,
    last_id: u64,
    /// What has fired since the last commit.
    fired: Vec<TimerChange>,
    /// When the first one is due.
    first_due: Option<Due>,
    /// What their inputs take.
    bytes: usize,
}

impl ActorTimers {
    /// The timers of an actor that comes back into memory.
    pub(crate) fn restored(
        actor: &ActorKey,
        stored: Vec<StoredTimer>,
        last_id: u64,
        clock: &Clock,
    ) -> Self {
        let mut timers = ActorTimers {
            last_id,
            ..ActorTimers::default()
        };
        for StoredTimer { id, timer } in stored {
            timers.last_id = timers.last_id.max(id);
            timers.insert(actor, id, timer, clock);
        }
        timers.find_first();
        timers
    }

    fn insert(&mut self, actor: &ActorKey, id: u64, timer: Timer, clock: &Clock) {
        let key = TimerKey {
            actor: actor.clone(),
            which: Which::Timer(id),
        };
        let alarm = clock.set(due_of(&timer), key);
        self.timers.insert(id, (timer, alarm));
    }

    /// Works out anew what depends on all of them.
    fn find_first(&mut self) {
        let ahead_ms = self.ahead_ms();
        let timers = self.timers.values().map(|(timer, _)| timer);
        let first = timers.min_by_key(|timer| timer.due_ms(ahead_ms));
        self.first_due = first.map(due_of);
        let timers = self.timers.values();
        let inputs = timers.filter_map(|(timer, _)| timer.input.as_deref());
        self.bytes = inputs.map(str::len).sum();
    }

    /// How far the wall clock was found to be ahead of the process's own.
    fn ahead_ms(&self) -> i64 {
        let any = self.timers.values().next();
        any.map_or(0, |(_, alarm)| alarm.ahead_ms())
    }

    /// What their inputs take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first one is due, once this has changed.
    pub(crate) fn first_due_ms(&self, changes: &[TimerChange]) -> Option<u64> {
        if changes.is_empty() {
            return self.first_due.map(|due| match due {
                Due::Steady(ms) => ms.saturating_add_signed(self.ahead_ms()),
                Due::Moment(ms) | Due::Calendar(ms) => ms,
            });
        }
        let ahead_ms = self.ahead_ms();
        let changed: HashSet<u64> = changes.iter().map(TimerChange::id).collect();
        let kept = self.timers.iter().filter(|(id, _)| !changed.contains(id));
        let kept = kept.map(|(_, (timer, _))| timer.due_ms(ahead_ms));
        let set = changes.iter().filter_map(|change| match change {
            TimerChange::Set(timer) => Some(timer.timer.due_ms),
            TimerChange::Cancel(_) => None,
        });
        kept.chain(set).min()
    }

    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// What has fired since this was last asked. Of intervals only beside something else
    /// that is committed: fired once more after a crash they do no harm if nothing came of
    /// it.
    pub(crate) fn take_fired(&mut self, in_any_case: bool) -> Vec<TimerChange> {
        let has_ended = |change: &TimerChange| matches!(change, TimerChange::Cancel(_));
        match in_any_case || self.fired.iter().any(has_ended) {
            true => std::mem::take(&mut self.fired),
            false => Vec::new(),
        }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.timers.contains_key(&id)
    }

    /// Sets and cancels what a turn has set and cancelled.
    pub(crate) fn change(&mut self, actor: &ActorKey, changes: Vec<TimerChange>, clock: &Clock) {
        if changes.is_empty() {
            return;
        }
        for change in changes {
            match change {
                TimerChange::Set(StoredTimer { id, timer }) => self.insert(actor, id, timer, clock),
                TimerChange::Cancel(id) => drop(self.timers.remove(&id)),
            }
        }
        self.find_first();
    }

    /// A timer whose time has come. One that fires once is gone with that.
    pub fn take_due(&mut self, id: u64, due: Due, clock: &Clock) -> Option<Timer> {
        let (timer, _) = self
            .timers
            .get(&id)
            .filter(|(_, alarm)| alarm.due() == due)?;
        let mut timer = timer.clone();
        timer.due_ms = timer.due_ms(clock.ahead_ms());
        let fired = |change: &TimerChange| change.is_setting(id);
        self.fired.retain(|change| !fired(change));
        match timer.every_ms {
            Some(every_ms) => {
                let timer = next(&timer, every_ms, clock);
                self.fired.push(TimerChange::Set(StoredTimer { id, timer }));
            }
            None => {
                self.timers.remove(&id);
                self.find_first();
                self.fired.push(TimerChange::Cancel(id));
            }
        }
        Some(timer)
    }

    /// Has a timer that has fired ring once more after so long, because its turn left no trace
    /// for a reason that passes.
    pub fn put_back(
        &mut self,
        actor: &ActorKey,
        (id, timer): (u64, Timer),
        after_ms: u64,
        clock: &Clock,
    ) {
        self.fired
            .retain(|change| !change.is_setting(id) && !change.cancels(id));
        let key = TimerKey {
            actor: actor.clone(),
            which: Which::Timer(id),
        };
        let due = Due::Steady(clock.steady_ms().saturating_add(after_ms));
        self.timers.insert(id, (timer, clock.set(due, key)));
        self.find_first();
    }

    /// Sets a timer that has fired for the next time on its grid that is yet to come.
    pub fn set_again(&mut self, actor: &ActorKey, id: u64, clock: &Clock) {
        let Some((timer, _)) = self.timers.remove(&id) else {
            return;
        };
        if let Some(every_ms) = timer.every_ms {
            self.insert(actor, id, next(&timer, every_ms, clock), clock);
        }
        self.find_first();
    }

    pub(crate) fn is_idle(&self, id: u64) -> bool {
        self.timers.get(&id).is_some_and(|(timer, _)| timer.idle)
    }

    /// Whether one of them keeps the actor in memory.
    pub fn keep_awake(&self) -> bool {
        self.timers.values().any(|(timer, _)| !timer.idle)
    }

    /// Ends those that do not survive deactivation. True if there were any.
    pub fn end_with_activity(&mut self) -> bool {
        let before = self.timers.len();
        self.timers.retain(|_, (timer, _)| timer.outlive);
        self.find_first();
        self.timers.len() < before
    }

    /// Ends all of them.
    pub fn clear(&mut self) {
        self.timers.clear();
        self.bytes = 0;
        self.fired.clear();
        self.first_due = None;
    }

    /// What to store of them.
    pub(crate) fn to_stored(&self) -> Vec<StoredTimer> {
        let ahead_ms = self.ahead_ms();
        let stored = |(id, (timer, _)): (&u64, &(Timer, Alarm))| StoredTimer {
            id: *id,
            timer: Timer {
                due_ms: timer.due_ms(ahead_ms),
                ..timer.clone()
            },
        };
        self.timers.iter().map(stored).collect()
    }
}

/// When a timer is due.
fn due_of(timer: &Timer) -> Due {
    match timer.steady_ms {
        Some(ms) => Due::Steady(ms),
        None => Due::Moment(timer.due_ms),
    }
}

/// An interval as it is to ring next: on its grid, which from the first firing in this
/// process on is one of spans.
fn next(timer: &Timer, every_ms: u64, clock: &Clock) -> Timer {
    let ahead_ms = clock.ahead_ms();
    let due_ms = (timer.steady_ms).unwrap_or_else(|| {
        timer
            .due_ms
            .saturating_add_signed(ahead_ms.saturating_neg())
    });
    let next_ms = next_on_grid(due_ms, every_ms, clock.steady_ms());
    Timer {
        due_ms: next_ms.saturating_add_signed(ahead_ms),
        steady_ms: Some(next_ms),
        ..timer.clone()
    }
}
