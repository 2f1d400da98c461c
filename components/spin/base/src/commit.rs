//! A commit: one statement, so that nobody else waits while it is put together.
//!
//! Spin carries out one statement a call, and several would hold the database from the first
//! to the last, while each waits for its turn on the machine. So a commit is one row, inserted
//! into a view; its trigger writes the actor's row if it is as it was read, and then the rest.

use std::time::Duration;

use serde_json::Value as Json;

use crate::database::{Database, DatabaseError, Value};
use crate::{clock, tables, values};

/// What the trigger says when another commit came before.
pub(crate) const OUTPACED: &str = "tidegate: outpaced";

/// The view that commits are inserted into. Whoever changes it, or the trigger, gives both the
/// next number: other versions go on with theirs.
pub(crate) const VIEW: &str = "CREATE VIEW IF NOT EXISTS tidegate_commits_1 AS SELECT
    NULL AS actor, NULL AS id, NULL AS commits, NULL AS epoch, NULL AS version,
    NULL AS from_version, NULL AS shown_version, NULL AS state, NULL AS state_version,
    NULL AS fit, NULL AS last_timer, NULL AS activated_ms, NULL AS schedules,
    NULL AS lease, NULL AS next_lease, NULL AS lease_until,
    NULL AS outbox, NULL AS timers_gone, NULL AS timers_set, NULL AS messages,
    NULL AS call, NULL AS input, NULL AS outcome, NULL AS result,
    NULL AS max_calls, NULL AS max_bytes, NULL AS calls_since_ms,
    NULL AS at_ms, NULL AS waited_ms
    WHERE 0";

/// What such an insertion does. `commits` is how many there were when the row was read, 0 of
/// an actor that had none. A mark of the queue that is older than 250 ms says nothing of now.
pub(crate) const TRIGGER: &str = "
CREATE TRIGGER IF NOT EXISTS tidegate_commit_1 INSTEAD OF INSERT ON tidegate_commits_1
BEGIN
    INSERT INTO tidegate_actors (actor, id, epoch, version, shown_version, commits, state,
        state_version, fit, last_timer, activated_ms, schedules, lease, lease_until)
    SELECT NEW.actor, NEW.id, NEW.epoch, NEW.version, NEW.shown_version, 1, NEW.state,
        NEW.state_version, NEW.fit, NEW.last_timer, NEW.activated_ms, NEW.schedules,
        NEW.next_lease, NEW.lease_until
    WHERE NEW.commits = 0
    ON CONFLICT (actor, id) DO NOTHING;
    SELECT RAISE(ABORT, 'tidegate: outpaced') WHERE NEW.commits = 0 AND changes() = 0;
    UPDATE tidegate_actors SET version = NEW.version, shown_version = NEW.shown_version,
        commits = commits + 1, state = coalesce(NEW.state, state),
        state_version = NEW.state_version, fit = NEW.fit, last_timer = NEW.last_timer,
        activated_ms = NEW.activated_ms, schedules = NEW.schedules, lease = NEW.next_lease,
        lease_until = NEW.lease_until
    WHERE NEW.commits > 0 AND actor = NEW.actor AND id = NEW.id AND commits = NEW.commits
        AND (lease IS NEW.lease OR (NEW.lease IS NULL AND lease_until <= NEW.at_ms));
    SELECT RAISE(ABORT, 'tidegate: outpaced') WHERE NEW.commits > 0 AND changes() = 0;
    INSERT INTO tidegate_outbox (actor, id, kind, name, payload, extended, epoch, version,
        from_version, at_ms)
    SELECT NEW.actor, NEW.id, value ->> 0, value ->> 1, value ->> 2, value ->> 3, NEW.epoch,
        NEW.version, NEW.from_version, NEW.at_ms
    FROM json_each(NEW.outbox) ORDER BY key;
    DELETE FROM tidegate_timers WHERE actor = NEW.actor AND id = NEW.id
        AND timer IN (SELECT value FROM json_each(NEW.timers_gone));
    INSERT OR REPLACE INTO tidegate_timers (actor, id, timer, method, input, due_ms, every_ms)
    SELECT NEW.actor, NEW.id, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4
    FROM json_each(NEW.timers_set);
    INSERT INTO tidegate_messages (from_actor, from_id, actor, id, method, input, key, due_ms,
        at_ms)
    SELECT NEW.actor, NEW.id, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
        value ->> 5, NEW.at_ms
    FROM json_each(NEW.messages) ORDER BY key;
    INSERT OR REPLACE INTO tidegate_answers (actor, id, call, input, outcome, result, at_ms)
    SELECT NEW.actor, NEW.id, NEW.call, NEW.input, NEW.outcome, NEW.result, NEW.at_ms
    WHERE NEW.call IS NOT NULL;
    DELETE FROM tidegate_answers WHERE NEW.call IS NOT NULL AND seq IN (
        SELECT seq FROM (
            SELECT seq, at_ms,
                row_number() OVER newest AS place,
                sum(128 + length(CAST(coalesce(result, '') AS BLOB))) OVER newest AS bytes
            FROM tidegate_answers WHERE actor = NEW.actor AND id = NEW.id
            WINDOW newest AS (ORDER BY seq DESC))
        WHERE place > 1 AND (place > NEW.max_calls OR bytes > NEW.max_bytes
            OR at_ms < NEW.calls_since_ms));
    UPDATE tidegate_queue SET served = served + 1, at_ms = NEW.at_ms,
        wait_ms = CASE WHEN NEW.at_ms - at_ms BETWEEN 0 AND 250
            THEN (3 * wait_ms + NEW.waited_ms) / 4 ELSE NEW.waited_ms END
    WHERE NEW.waited_ms IS NOT NULL;
END";

const INSERT: &str = "
INSERT INTO tidegate_commits_1 (actor, id, commits, epoch, version, from_version, shown_version,
    state, state_version, fit, last_timer, activated_ms, schedules, lease, next_lease,
    lease_until, outbox, timers_gone, timers_set, messages, call, input, outcome, result,
    max_calls, max_bytes, calls_since_ms, at_ms, waited_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19,
    ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)";

/// What a commit writes. The lists of rows are JSON arrays of arrays, and may be empty.
#[derive(Debug, Default)]
pub struct Commit<'a> {
    /// The actor type.
    pub actor: &'a str,
    /// The actor's id.
    pub id: &'a str,
    /// How many commits there were when the actor was read.
    pub commits: u64,
    /// Which history.
    pub epoch: &'a str,
    /// Where in it the commit leads.
    pub version: u64,
    /// Where those were who have seen everything before it.
    pub from_version: u64,
    /// Where those are who see everything.
    pub shown_version: u64,
    /// The state, if it is to be written.
    pub state: Option<String>,
    /// Which version of the state it is.
    pub state_version: u64,
    /// Which schema it satisfies.
    pub fit: &'a str,
    /// The number of the last timer.
    pub last_timer: u64,
    /// When the actor was activated.
    pub activated_ms: Option<u64>,
    /// The schedules that are set.
    pub schedules: Option<&'a str>,
    /// The lease that the turn has.
    pub lease: Option<&'a str>,
    /// The lease that holds from here on.
    pub next_lease: Option<&'a str>,
    /// Until when, in milliseconds since the Unix epoch.
    pub lease_until_ms: u64,
    /// Rows of the outbox: kind, name, payload, extended payload.
    pub outbox: Vec<Json>,
    /// The numbers of timers that end.
    pub timers_gone: Vec<i64>,
    /// Timers that are set: number, method, input, when they are due, how often.
    pub timers_set: Vec<Json>,
    /// Messages: actor, id, method, input, key, when they are due.
    pub messages: Vec<Json>,
    /// What became of the call.
    pub answer: Option<Answer<'a>>,
}

/// What is remembered of a call that is to run once.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The call.
    pub call: &'a str,
    /// What its input was.
    pub input: &'a str,
    /// What became of it.
    pub outcome: &'static str,
    /// Its result.
    pub result: Option<&'a str>,
    /// How many of the actor's are kept.
    pub max_calls: u64,
    /// How many bytes of results.
    pub max_bytes: u64,
    /// From when on.
    pub since_ms: u64,
}

impl Commit<'_> {
    /// Writes all of it, or nothing.
    pub fn write(mut self, database: &Database) -> Result<(), DatabaseError> {
        let list = |rows: Vec<Json>| (!rows.is_empty()).then(|| Json::from(rows).to_string());
        let timers_gone = self.timers_gone.iter().map(|id| Json::from(*id)).collect();
        let answer = self.answer.as_ref();
        let mut values = values![
            self.actor,
            self.id,
            self.commits,
            self.epoch,
            self.version,
            self.from_version,
            self.shown_version,
            Value::Null,
            self.state_version,
            self.fit,
            self.last_timer,
            self.activated_ms,
            self.schedules,
            self.lease,
            self.next_lease,
            self.lease_until_ms,
            list(self.outbox).as_ref(),
            list(timers_gone).as_ref(),
            list(self.timers_set).as_ref(),
            list(self.messages).as_ref(),
            answer.map(|answer| answer.call),
            answer.map(|answer| answer.input),
            answer.map(|answer| answer.outcome),
            answer.and_then(|answer| answer.result),
            answer.map(|answer| answer.max_calls),
            answer.map(|answer| answer.max_bytes),
            answer.map(|answer| answer.since_ms),
            Value::Null,
            Value::Null,
        ];
        if let Some(state) = self.state.take() {
            values[STATE] = Value::Text(state);
        }
        let note = |values: &mut [Value], waited: Option<Duration>| {
            values[AT_MS] = clock::unix_ms().into();
            values[WAITED_MS] = waited.map(|waited| waited.as_millis() as u64).into();
        };
        let mut insert = || database.write_noting(INSERT, &mut values, note);
        match insert() {
            // An earlier version has made the others.
            Err(DatabaseError::NoTables) => {
                tables::make(database)?;
                insert()
            }
            done => done,
        }
        .map(drop)
    }
}

/// The places of values that are filled in later.
const STATE: usize = 7;
const AT_MS: usize = 27;
const WAITED_MS: usize = 28;

#[cfg(test)]
mod tests {
    use tidegate_core::turn::idempotency::ANSWER_COST;

    use super::*;

    #[test]
    fn the_trigger_says_what_is_listened_for() {
        assert_eq!(TRIGGER.matches(OUTPACED).count(), 2);
        let fresh = format!("BETWEEN 0 AND {} ", crate::queue::FRESH_MS);
        assert!(
            TRIGGER
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(fresh.trim())
        );
    }

    #[test]
    fn the_trigger_weighs_answers_as_the_rules_do() {
        let weight = format!("sum({ANSWER_COST} + length(");
        assert!(TRIGGER.contains(&weight));
    }

    #[test]
    fn a_value_is_given_for_each_column_of_the_view() {
        let columns = VIEW.matches("NULL AS").count();
        assert_eq!(INSERT.matches('?').count(), columns);
        let named = INSERT.split(['(', ')']).nth(1).unwrap_or_default();
        let named: Vec<&str> = named.split(',').map(str::trim).collect();
        let viewed: Vec<&str> = VIEW
            .split("NULL AS ")
            .skip(1)
            .map(|rest| rest.split([',', '\n']).next().unwrap_or_default())
            .collect();
        assert_eq!(named, viewed);
        assert_eq!(
            [named[STATE], named[AT_MS], named[WAITED_MS]],
            ["state", "at_ms", "waited_ms"]
        );
    }
}
