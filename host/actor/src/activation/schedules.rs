//! The schedules of an actor's manifest, while it is active.
//!
//! Invariant: the schedules are those of the component that serves the actor, and each is set for
//! its next moment, once.

use std::sync::atomic::Ordering;

use tidegate_base::sync::MutexGuard;
use tidegate_base::timer::{Alarm, Due};
use tidegate_core::cron::Cron;
use tidegate_core::turn::timers::next_moment;
use tidegate_engine::Component;

use super::super::Shared;
use super::Activation;
use crate::turn::{TimerKey, Which};

/// The schedules of an actor that is active.
#[derive(Default)]
pub(super) struct Schedules {
    /// The component whose schedules they are.
    of: u64,
    /// When they began, on the process's own clock.
    since_ms: u64,
    pub(super) all: Vec<Scheduled>,
}

/// One of them.
#[derive(Default)]
pub(super) struct Scheduled {
    alarm: Option<Alarm>,
    /// Its last moment that has fired; 0 for none.
    pub(super) fired_ms: u64,
}

impl Activation {
    pub(super) fn schedules(&self) -> MutexGuard<'_, Schedules> {
        self.schedules.lock()
    }

    /// Whether the schedules are those of this component, or it is not active.
    pub(super) fn is_scheduled(&self, component: &Component) -> bool {
        !self.activated.load(Ordering::Relaxed) || self.schedules().of == component.serial
    }

    /// Begins the schedules of this component, unless they run.
    pub(super) fn begin_schedules(&self, component: &Component, shared: &Shared) {
        let Ok(declared) = self.type_in(component) else {
            return;
        };
        {
            let mut schedules = self.schedules();
            if schedules.of == component.serial {
                return;
            }
            *schedules = Schedules {
                of: component.serial,
                since_ms: shared.clock.steady_ms(),
                all: declared.cron.iter().map(|_| Scheduled::default()).collect(),
            };
        }
        for place in 0..declared.cron.len() {
            self.schedule(place, shared);
        }
    }

    /// Sets one of the schedules for the next time that it is due.
    pub(super) fn schedule(&self, place: usize, shared: &Shared) {
        let Some(component) = self.slot.component() else {
            return;
        };
        let declared = self.type_in(&component).ok();
        let mut schedules = self.schedules();
        let cron = declared.and_then(|declared| declared.cron.values().nth(place));
        let clock = &shared.clock;
        let next = cron.and_then(|cron| match cron {
            // An interval is a span of time.
            Cron::Every { .. } => cron
                .next_after(schedules.since_ms, clock.steady_ms())
                .map(Due::Steady),
            Cron::Schedule(schedule) => {
                let fired_ms = schedules.all.get(place).map_or(0, |one| one.fired_ms);
                next_moment(schedule, fired_ms, clock.now_ms()).map(Due::Calendar)
            }
        });
        let key = TimerKey {
            actor: self.key.clone(),
            which: Which::Schedule(place),
        };
        if let Some(scheduled) = schedules.all.get_mut(place) {
            scheduled.alarm = next.map(|due| clock.set(due, key));
        }
    }
}
