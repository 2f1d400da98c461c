//! The timers of an actor: what its turns have set, and the schedules of the manifest. On
//! Spin nothing wakes by itself: what is due runs before the actor's next turn, or when the
//! clock ticks (`POST /_tidegate/tick`).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_core::ActorKey;
use tidegate_core::cron::Cron;
use tidegate_core::manifest::ActorType;
use tidegate_core::turn::timers::{next_moment, next_on_grid};
use tidegate_core::turn::{StoredTimer, TimerChange};
use tidegate_spin_base::database::{Database, DatabaseError};
use tidegate_spin_base::values;

/// What changes in the rows of an actor's timers and schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimerRow {
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
    Gone(i64),
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

impl TimerRow {
    /// That of a timer which a turn sets or cancels.
    pub(crate) fn of(change: &TimerChange) -> TimerRow {
        match change {
            TimerChange::Set(StoredTimer { id, timer }) => TimerRow::Set {
                id: row_of(*id),
                method: timer.method.to_string(),
                input: timer.input.as_deref().map(str::to_owned),
                due_ms: timer.due_ms,
                every_ms: timer.every_ms,
            },
            TimerChange::Cancel(id) => TimerRow::Gone(row_of(*id)),
        }
    }

    fn id(&self) -> i64 {
        match self {
            TimerRow::Set { id, .. } | TimerRow::Gone(id) => *id,
        }
    }
}

/// The number of a timer's row; schedules have those below 0.
pub(crate) fn row_of(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// How many timers of an actor are stored.
pub(crate) fn count(database: &Database, key: &ActorKey) -> Result<usize, DatabaseError> {
    let rows = database.read(
        "SELECT count(*) FROM tidegate_timers WHERE actor = ?1 AND id = ?2 AND timer > 0",
        &values![key.actor.as_str(), key.id.as_str()],
    )?;
    let count = rows
        .into_iter()
        .next()
        .map_or(Ok(0), |mut row| row.number())?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Whether a timer is stored.
pub(crate) fn exists(database: &Database, key: &ActorKey, id: u64) -> Result<bool, DatabaseError> {
    let found = database.read(
        "SELECT 1 FROM tidegate_timers WHERE actor = ?1 AND id = ?2 AND timer = ?3",
        &values![key.actor.as_str(), key.id.as_str(), row_of(id)],
    )?;
    Ok(!found.is_empty())
}

/// What changes come to, of which later ones win: the numbers of the timers that are gone, and
/// the rows of those that are set.
pub(crate) fn come_to(changes: &[TimerRow]) -> (Vec<i64>, Vec<Value>) {
    let last: BTreeMap<i64, &TimerRow> =
        changes.iter().map(|change| (change.id(), change)).collect();
    let (mut gone, mut set) = (Vec::new(), Vec::new());
    for change in last.into_values() {
        match change {
            TimerRow::Set {
                id,
                method,
                input,
                due_ms,
                every_ms,
            } => set.push(json!([id, method, input, due_ms, every_ms])),
            TimerRow::Gone(id) => gone.push(*id),
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
    pub(crate) fn fired(&self, declared: &ActorType, since_ms: u64, now_ms: u64) -> TimerRow {
        let next = match (self.id < 0, self.every_ms) {
            (true, _) => {
                let cron = declared.cron.get(self.method.as_str());
                cron.and_then(|cron| match cron {
                    Cron::Every { .. } => cron.next_after(since_ms, now_ms),
                    Cron::Schedule(schedule) => next_moment(schedule, self.due_ms, now_ms),
                })
            }
            (false, Some(every_ms)) => Some(next_on_grid(self.due_ms, every_ms, now_ms)),
            (false, None) => None,
        };
        match next {
            Some(due_ms) => TimerRow::Set {
                id: self.id,
                method: self.method.clone(),
                input: self.input.clone(),
                due_ms,
                every_ms: self.every_ms,
            },
            None => TimerRow::Gone(self.id),
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
) -> Vec<TimerRow> {
    let place = |place: usize| -1 - i64::try_from(place).unwrap_or(i64::MAX - 1);
    let set = declared
        .cron
        .iter()
        .enumerate()
        .filter_map(|(index, (name, cron))| {
            Some(TimerRow::Set {
                id: place(index),
                method: name.to_string(),
                input: None,
                due_ms: cron.next_after(since_ms, now_ms)?,
                every_ms: None,
            })
        });
    let gone = (0..before).map(|index| TimerRow::Gone(place(index)));
    gone.chain(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declared::Declared;

    fn declared() -> Declared {
        let manifest = r#"{"tidegate": "0.1", "actors": {"a": {
            "methods": {"tidy": {}, "add": {"input": {"type": "integer"}}},
            "cron": {"tidy": {"everyMs": 1000}}
        }}}"#;
        Declared::parse(manifest, "a").unwrap().unwrap()
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

    fn next(change: TimerRow) -> Option<u64> {
        match change {
            TimerRow::Set { due_ms, .. } => Some(due_ms),
            TimerRow::Gone(_) => None,
        }
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
        let set = |id: i64, due_ms| TimerRow::Set {
            id,
            method: "tidy".to_owned(),
            input: None,
            due_ms,
            every_ms: None,
        };
        let changes = [
            set(1, 10),
            TimerRow::Gone(2),
            TimerRow::Gone(1),
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
        assert_eq!(changes[1], TimerRow::Gone(-2));
        assert_eq!(next(changes[2].clone()), Some(1_500));
        assert!(schedules_of(&declared()).is_some());
    }
}
