//! The timers of an actor and its schedules: what may be set, and when they ring next.

use std::collections::BTreeMap;

use super::record::TimerChange;
use super::{Checked, EFFECT_COST, Limits};
use crate::cron::Schedule;
use crate::failure::Failure;
use crate::manifest::Method;
use crate::name::Name;

/// Longest delay of a timer: ten years, in milliseconds.
pub const MAX_DELAY_MS: u64 = 10 * 366 * 24 * 60 * 60 * 1000;

/// A clock that is set back by no more than this has a schedule wait for what it has not shown yet;
/// beyond it, moments come again. Cron implementations draw the line there, too.
const SAME_MOMENT_MS: u64 = 3 * 60 * 60 * 1000;

/// A timer that a guest sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTimer {
    /// From now until it fires first, in milliseconds.
    pub delay_ms: u64,
    /// From then on until it fires again; none fires once.
    pub every_ms: Option<u64>,
    /// The method that it calls.
    pub method: String,
    /// With this input.
    pub input: Option<String>,
    /// It does not by itself keep the actor in memory.
    pub idle: bool,
    /// It survives deactivation and wakes the actor.
    pub outlive: bool,
}

impl NewTimer {
    /// What it weighs that a turn stages it, in bytes.
    pub fn cost(&self) -> usize {
        EFFECT_COST + self.method.len() + self.input.as_ref().map_or(0, String::len)
    }

    /// The input that is checked: that of a timer without one is `null`.
    pub fn checked_input(&self) -> &str {
        self.input.as_deref().unwrap_or("null")
    }

    /// Whether it may be set, but for its input. Returns the method that it calls.
    ///
    /// # Errors
    ///
    /// `timer.invalid-delay`, `timer.unknown-method`
    pub fn check<'m>(
        &self,
        methods: &'m BTreeMap<Name, Method>,
    ) -> Result<(&'m Name, &'m Method), Failure> {
        let mut delays = [Some(self.delay_ms), self.every_ms].into_iter().flatten();
        if delays.any(|delay| delay > MAX_DELAY_MS) || self.every_ms == Some(0) {
            return Err(Failure::timer_invalid_delay(MAX_DELAY_MS));
        }
        methods
            .get_key_value(self.method.as_str())
            .ok_or_else(|| Failure::timer_unknown_method(&self.method))
    }

    /// Its input as its method is called with it.
    ///
    /// # Errors
    ///
    /// `timer.invalid-input`
    pub fn take_input(&mut self, checked: Checked) -> Result<Option<String>, Failure> {
        match checked {
            Ok(spelled) => Ok(spelled.or_else(|| self.input.take())),
            Err(detail) => Err(Failure::timer_invalid_input(&self.method, detail)),
        }
    }
}

/// Whether an actor that has so many timers, and has staged these changes, may have a further one.
///
/// # Errors
///
/// `timer.limit`
pub fn check_room(kept: usize, staged: &[TimerChange], limits: &Limits) -> Result<(), Failure> {
    let limit = limits.timers;
    let set = staged.iter().filter(|change| change.sets()).count();
    match kept.saturating_add(set) >= limit {
        true => Err(Failure::timer_limit(limit)),
        false => Ok(()),
    }
}

/// Stages that a timer ends. Says whether there was one: among those that are staged, or else as
/// `exists` says.
///
/// # Errors
///
/// Those of `exists`.
pub fn cancel<E>(
    staged: &mut Vec<TimerChange>,
    id: u64,
    exists: impl FnOnce() -> Result<bool, E>,
) -> Result<bool, E> {
    let before = staged.len();
    staged.retain(|change| !change.is_setting(id));
    if staged.len() < before {
        return Ok(true);
    }
    if staged.iter().any(|change| change.cancels(id)) || !exists()? {
        return Ok(false);
    }
    staged.push(TimerChange::Cancel(id));
    Ok(true)
}

/// The first point of a grid that lies behind now.
pub fn next_on_grid(due_ms: u64, every_ms: u64, now_ms: u64) -> u64 {
    let every_ms = every_ms.max(1);
    let steps = now_ms.saturating_sub(due_ms) / every_ms + 1;
    due_ms.saturating_add(steps.saturating_mul(every_ms))
}

/// The next moment of a schedule whose last moment that has fired is this, 0 for none: what a clock
/// that was set back a little shows once more has fired.
pub fn next_moment(schedule: &Schedule, fired_ms: u64, now_ms: u64) -> Option<u64> {
    let again = fired_ms.saturating_sub(now_ms) <= SAME_MOMENT_MS;
    schedule.next_after(if again { now_ms.max(fired_ms) } else { now_ms })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::manifest::Manifest;
    use crate::turn::record::{StoredTimer, Timer};

    fn methods() -> BTreeMap<Name, Method> {
        let manifest = r#"{"tidegate": "0.1", "actors": {"a": {"methods": {"add": {}}}}}"#;
        let manifest = Manifest::parse(manifest).unwrap();
        manifest.actors["a"].methods.clone()
    }

    fn timer(method: &str) -> NewTimer {
        NewTimer {
            delay_ms: 1,
            every_ms: None,
            method: method.to_owned(),
            input: None,
            idle: false,
            outlive: false,
        }
    }

    fn set(id: u64) -> TimerChange {
        let timer = Timer {
            method: Name::parse("add").unwrap(),
            input: None,
            due_ms: 1,
            every_ms: None,
            idle: false,
            outlive: false,
            steady_ms: None,
        };
        TimerChange::Set(StoredTimer { id, timer })
    }

    #[test]
    fn a_timer_names_a_method_and_a_time_that_can_come() {
        let methods = methods();
        let code = |timer: &NewTimer| match timer.check(&methods) {
            Ok((name, _)) => name.to_string(),
            Err(failure) => failure.code.into_owned(),
        };
        assert_eq!(code(&timer("add")), "add");
        assert_eq!(code(&timer("nope")), "timer.unknown-method");
        let late = NewTimer {
            delay_ms: MAX_DELAY_MS + 1,
            ..timer("add")
        };
        assert_eq!(code(&late), "timer.invalid-delay");
        for every_ms in [0, MAX_DELAY_MS + 1] {
            let every_ms = Some(every_ms);
            assert_eq!(
                code(&NewTimer {
                    every_ms,
                    ..timer("add")
                }),
                "timer.invalid-delay"
            );
        }
    }

    #[test]
    fn a_timer_calls_with_its_input_as_it_is_to_be_written() {
        let with = |input: Option<&str>| NewTimer {
            input: input.map(str::to_owned),
            ..timer("add")
        };
        assert_eq!(with(None).checked_input(), "null");
        assert_eq!(with(None).take_input(Ok(None)), Ok(None));
        assert_eq!(
            with(Some("1")).take_input(Ok(None)),
            Ok(Some("1".to_owned()))
        );
        let spelled = Ok(Some("1".to_owned()));
        assert_eq!(
            with(Some("1.0")).take_input(spelled),
            Ok(Some("1".to_owned()))
        );
        let failure = with(Some("{"))
            .take_input(Err("no".to_owned()))
            .unwrap_err();
        assert_eq!(failure.text(), "the input for `add` is invalid: no");
        assert_eq!(failure.code, "timer.invalid-input");
    }

    #[test]
    fn missed_points_of_the_grid_are_skipped() {
        assert_eq!(next_on_grid(1000, 100, 1000), 1100);
        assert_eq!(next_on_grid(1000, 100, 1099), 1100);
        assert_eq!(next_on_grid(1000, 100, 1100), 1200);
        assert_eq!(next_on_grid(1000, 100, 5055), 5100);
    }

    #[test]
    fn a_moment_that_has_fired_does_not_come_again_where_the_clock_is_set_back_a_little() {
        const MINUTE: u64 = 60_000;
        let schedule = Schedule::parse("* * * * *").unwrap();
        let next = |fired_ms, now_ms| next_moment(&schedule, fired_ms, now_ms).unwrap();
        assert_eq!(next(0, 10 * MINUTE), 11 * MINUTE);
        assert_eq!(next(10 * MINUTE, 8 * MINUTE), 11 * MINUTE);
        assert_eq!(next(1_000 * MINUTE, 8 * MINUTE), 9 * MINUTE, "much");
    }

    proptest! {
        #[test]
        fn the_next_point_is_on_the_grid_and_to_come(
            due in 0u64..1 << 50, every in 1u64..1 << 40, late in 0u64..1 << 50,
        ) {
            let next = next_on_grid(due, every, due + late);
            prop_assert!(next > due + late);
            prop_assert!(next - (due + late) <= every);
            prop_assert_eq!((next - due) % every, 0);
        }

        /// A turn that sets and cancels among timers that there are.
        #[test]
        fn what_is_cancelled_is_there_no_more_and_never_twice(
            steps in prop::collection::vec((any::<bool>(), 1u64..9), 0..30),
        ) {
            let limits = Limits { timers: 8, ..Limits::DEFAULT };
            let stored: Vec<u64> = (1..5).collect();
            let mut alive = stored.clone();
            let mut staged = Vec::new();
            let mut last = 4;
            for (sets, id) in steps {
                if sets {
                    let room = check_room(stored.len(), &staged, &limits);
                    let set_now = staged.iter().filter(|change| change.sets()).count();
                    prop_assert_eq!(room.is_ok(), stored.len() + set_now < 8);
                    if room.is_ok() {
                        last += 1;
                        staged.push(set(last));
                        alive.push(last);
                    }
                } else {
                    let exists = || Ok::<_, Infallible>(stored.contains(&id));
                    let Ok(cancelled) = cancel(&mut staged, id, exists);
                    prop_assert_eq!(cancelled, alive.contains(&id));
                    alive.retain(|other| *other != id);
                }
                prop_assert_eq!(
                    alive.len(),
                    stored.len() + staged.iter().filter(|change| change.sets()).count()
                        - staged.iter().filter(|change| !change.sets()).count()
                );
            }
        }
    }
}
