//! The timers of an actor: what its turns have set, and the schedules of the manifest. On
//! Spin nothing wakes by itself: what is due runs before the actor's next turn, or when the
//! clock ticks (`POST /_tidegate/tick`).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_core::failure::code;
use tidegate_core::manifest::ActorType;
use tidegate_core::{ActorKey, Failure, Name};
use tidegate_spin_base::database::{Database, DatabaseError};
use tidegate_spin_base::values;

use crate::declared::{Against, Declared};

/// Longest delay of a timer: ten years, in milliseconds.
const MAX_DELAY_MS: u64 = 10 * 366 * 24 * 60 * 60 * 1000;

/// A timer that a turn sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewTimer {
    /// From now until it fires first, in milliseconds.
    pub(crate) delay_ms: u64,
    /// From then on until it fires again; none fires once.
    pub(crate) every_ms: Option<u64>,
    /// The method that it calls.
    pub(crate) method: String,
    /// With this input.
    pub(crate) input: Option<String>,
}

/// A change of an actor's timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimerChange {
    /// One is set.
    Set {
        /// Its id; below 0 that of a schedule.
        id: i64,
        /// What it calls.
        method: String,
        /// With this input.
        input: Option<String>,
        /// When it is due, in milliseconds since the Unix epoch.
        due_ms: u64,
        /// And then again.
        every_ms: Option<u64>,
    },
    /// One is gone.
    Cancel(i64),
}

/// A timer whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Its id; below 0 that of a schedule.
    pub(crate) id: i64,
    /// What it calls.
    pub(crate) method: String,
    /// With this input.
    pub(crate) input: Option<String>,
    /// When it was due.
    pub(crate) due_ms: u64,
    every_ms: Option<u64>,
    /// How often its turn was begun and not ended.
    pub(crate) tries: u64,
}

impl TimerChange {
    pub(crate) fn sets(&self, wanted: i64) -> bool {
        matches!(self, TimerChange::Set { id, .. } if *id == wanted)
    }

    fn id(&self) -> i64 {
        match self {
            TimerChange::Set { id, .. } | TimerChange::Cancel(id) => *id,
        }
    }
}

/// What changes come to, of which later ones win: the numbers of the timers that are gone, and
/// the rows of those that are set.
pub(crate) fn come_to(changes: &[TimerChange]) -> (Vec<i64>, Vec<Value>) {
    let last: BTreeMap<i64, &TimerChange> =
        changes.iter().map(|change| (change.id(), change)).collect();
    let (mut gone, mut set) = (Vec::new(), Vec::new());
    for change in last.into_values() {
        match change {
            TimerChange::Set {
                id,
                method,
                input,
                due_ms,
                every_ms,
            } => set.push(json!([id, method, input, due_ms, every_ms])),
            TimerChange::Cancel(id) => gone.push(*id),
        }
    }
    (gone, set)
}

impl Due {
    /// The first timer of an actor that is due.
    pub(crate) fn first(
        database: &Database,
        key: &ActorKey,
        now_ms: u64,
    ) -> Result<Option<Due>, DatabaseError> {
        let rows = database.read(
            "SELECT timer, method, input, due_ms, every_ms, tries FROM tidegate_timers
             WHERE actor = ?1 AND id = ?2 AND due_ms <= ?3 ORDER BY due_ms, timer LIMIT 1",
            &values![key.actor.as_str(), key.id.as_str(), now_ms],
        )?;
        let Some(mut row) = rows.into_iter().next() else {
            return Ok(None);
        };
        Ok(Some(Due {
            id: row.integer()?,
            method: row.text()?,
            input: row.optional_text()?,
            due_ms: row.number()?,
            every_ms: row.optional_number()?,
            tries: row.number()?,
        }))
    }

    /// Notes that its turn begins, so that one that never ends is not tried for ever.
    pub(crate) fn note_try(
        &self,
        database: &Database,
        key: &ActorKey,
    ) -> Result<(), DatabaseError> {
        database.write(
            "UPDATE tidegate_timers SET tries = tries + 1
             WHERE actor = ?1 AND id = ?2 AND timer = ?3 AND due_ms = ?4",
            &values![key.actor.as_str(), key.id.as_str(), self.id, self.due_ms],
        )?;
        Ok(())
    }

    /// What becomes of it once it has fired: it is gone, or set for the next time that is
    /// yet to come.
    pub(crate) fn fired(&self, declared: &ActorType, since_ms: u64, now_ms: u64) -> TimerChange {
        let next = match (self.id < 0, self.every_ms) {
            (true, _) => {
                let cron = declared.cron.get(self.method.as_str());
                cron.and_then(|cron| cron.next_after(since_ms, now_ms))
            }
            (false, Some(every_ms)) => Some(next_on_grid(self.due_ms, every_ms, now_ms)),
            (false, None) => None,
        };
        match next {
            Some(due_ms) => TimerChange::Set {
                id: self.id,
                method: self.method.clone(),
                input: self.input.clone(),
                due_ms,
                every_ms: self.every_ms,
            },
            None => TimerChange::Cancel(self.id),
        }
    }
}

/// What names the schedules of an actor type; none without any.
pub(crate) fn schedules_of(declared: &ActorType) -> Option<String> {
    let names = declared.cron.iter();
    let names: Vec<String> = names
        .map(|(name, cron)| format!("{name} {cron:?}"))
        .collect();
    (!names.is_empty()).then(|| names.join("\n"))
}

/// Sets the schedules of an actor type in the place of those that were set before.
pub(crate) fn begin_schedules(
    declared: &ActorType,
    before: usize,
    since_ms: u64,
    now_ms: u64,
) -> Vec<TimerChange> {
    let place = |place: usize| -1 - i64::try_from(place).unwrap_or(i64::MAX - 1);
    let set = declared
        .cron
        .iter()
        .enumerate()
        .filter_map(|(index, (name, cron))| {
            Some(TimerChange::Set {
                id: place(index),
                method: name.to_string(),
                input: None,
                due_ms: cron.next_after(since_ms, now_ms)?,
                every_ms: None,
            })
        });
    let gone = (0..before).map(|index| TimerChange::Cancel(place(index)));
    gone.chain(set).collect()
}

/// The first point of a grid that lies behind now.
fn next_on_grid(due_ms: u64, every_ms: u64, now_ms: u64) -> u64 {
    let every_ms = every_ms.max(1);
    let steps = now_ms.saturating_sub(due_ms) / every_ms + 1;
    due_ms.saturating_add(steps.saturating_mul(every_ms))
}

/// Checks a timer. Returns the name of its method, and its input if that is to be written
/// otherwise.
pub(crate) fn check(
    timer: &NewTimer,
    declared: &Declared,
) -> Result<(Name, Option<String>), Failure> {
    let delays = [Some(timer.delay_ms), timer.every_ms].into_iter().flatten();
    if delays.clone().any(|delay| delay > MAX_DELAY_MS) || timer.every_ms == Some(0) {
        return Err(Failure::host(code::TIMER_INVALID_DELAY)
            .message(format!(
                "expected a delay of at most {MAX_DELAY_MS} ms, and an interval of at least 1 ms"
            ))
            .param("max", MAX_DELAY_MS));
    }
    let Some((name, _)) = declared.methods.get_key_value(timer.method.as_str()) else {
        return Err(Failure::host(code::TIMER_UNKNOWN_METHOD)
            .message(format!("there is no method `{}`", timer.method))
            .param("method", timer.method.as_str()));
    };
    let invalid = |detail: String| {
        Failure::host(code::TIMER_INVALID_INPUT)
            .message(format!("the input for `{name}` is invalid: {detail}"))
            .param("method", name.as_str())
    };
    let input = timer.input.as_deref().unwrap_or("null");
    let spelled = declared
        .check_text(Against::Input(name.as_str()), input)?
        .map_err(invalid)?;
    Ok((name.clone(), spelled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Declared {
        let manifest = r#"{"tidegate": "0.1", "actors": {"a": {
            "methods": {"tidy": {}, "add": {"input": {"type": "integer"}}},
            "cron": {"tidy": {"everyMs": 1000}}
        }}}"#;
        Declared::parse(manifest, "a").unwrap().unwrap()
    }

    fn timer(method: &str, input: &str) -> NewTimer {
        NewTimer {
            delay_ms: 1,
            every_ms: None,
            method: method.to_owned(),
            input: Some(input.to_owned()),
        }
    }

    fn due(id: i64, every_ms: Option<u64>) -> Due {
        Due {
            id,
            method: "tidy".to_owned(),
            input: None,
            due_ms: 1_000,
            every_ms,
            tries: 0,
        }
    }

    fn next(change: TimerChange) -> Option<u64> {
        match change {
            TimerChange::Set { due_ms, .. } => Some(due_ms),
            TimerChange::Cancel(_) => None,
        }
    }

    #[test]
    fn a_timer_names_a_method_and_an_input_that_it_accepts() {
        let code = |timer: &NewTimer| check(timer, &declared()).map_err(|failure| failure.code);
        assert!(code(&timer("add", "1")).is_ok());
        assert_eq!(
            code(&timer("nope", "1")).unwrap_err(),
            "timer.unknown-method"
        );
        assert_eq!(
            code(&timer("add", "\"x\"")).unwrap_err(),
            "timer.invalid-input"
        );
        let late = NewTimer {
            delay_ms: MAX_DELAY_MS + 1,
            ..timer("add", "1")
        };
        assert_eq!(code(&late).unwrap_err(), "timer.invalid-delay");
        let busy = NewTimer {
            every_ms: Some(0),
            ..timer("add", "1")
        };
        assert_eq!(code(&busy).unwrap_err(), "timer.invalid-delay");
    }

    #[test]
    fn an_interval_goes_on_from_its_grid_and_a_single_one_is_gone() {
        assert_eq!(
            next(due(1, Some(100)).fired(&declared(), 0, 5_055)),
            Some(5_100)
        );
        assert_eq!(next(due(1, None).fired(&declared(), 0, 5_055)), None);
    }

    #[test]
    fn a_schedule_goes_on_as_the_manifest_says() {
        assert_eq!(
            next(due(-1, None).fired(&declared(), 0, 5_055)),
            Some(6_000)
        );
        let gone = Due {
            method: "gone".to_owned(),
            ..due(-2, None)
        };
        assert_eq!(next(gone.fired(&declared(), 0, 5_055)), None);
    }

    #[test]
    fn of_several_changes_of_a_timer_the_last_counts() {
        let set = |id: i64, due_ms| TimerChange::Set {
            id,
            method: "tidy".to_owned(),
            input: None,
            due_ms,
            every_ms: None,
        };
        let changes = [
            set(1, 10),
            TimerChange::Cancel(2),
            TimerChange::Cancel(1),
            set(2, 20),
            set(-1, 30),
        ];
        let (gone, set) = come_to(&changes);
        assert_eq!(gone, [1]);
        let due: Vec<&Value> = set.iter().map(|row| &row[3]).collect();
        assert_eq!(due, [30, 20]);
    }

    #[test]
    fn schedules_are_set_in_the_place_of_others() {
        let changes = begin_schedules(&declared(), 2, 500, 600);
        assert_eq!(changes.len(), 3);
        assert_eq!(changes[1], TimerChange::Cancel(-2));
        assert_eq!(next(changes[2].clone()), Some(1_500));
        assert!(schedules_of(&declared()).is_some());
    }
}
