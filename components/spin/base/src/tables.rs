//! The tables, made on first use.
//!
//! | table | a row is |
//! |---|---|
//! | `tidegate_meta` | the format of the tables; the salt of epochs |
//! | `tidegate_actors` | an actor: its place in history, its state, who has the lease |
//! | `tidegate_outbox` | a patch or an event, in the order of the commits |
//! | `tidegate_timers` | a timer, or (numbers below 0) a schedule of the manifest |
//! | `tidegate_answers` | what became of a call with an idempotency key |
//! | `tidegate_messages` | a message to another actor that was not delivered yet |
//! | `tidegate_queue` | the only one: how long the last writers had to wait |
//!
//! All components of an application share them. Nothing writes to an actor's row but a commit,
//! which is one statement ([`commit`](crate::commit)).

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tidegate_core::turn::idempotency::Bounds;

use crate::commit::{TRIGGER, VIEW};
use crate::database::{Database, DatabaseError};
use crate::{clock, settings, values};

/// The format of the tables that this version reads and writes.
pub const FORMAT: &str = "1";

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS tidegate_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS tidegate_actors (
        actor TEXT NOT NULL, id TEXT NOT NULL,
        epoch TEXT NOT NULL, version INTEGER NOT NULL, commits INTEGER NOT NULL,
        shown_version INTEGER NOT NULL, state TEXT NOT NULL, state_version INTEGER NOT NULL,
        fit TEXT NOT NULL,
        last_timer INTEGER NOT NULL,
        activated_ms INTEGER, schedules TEXT,
        lease TEXT, lease_until INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (actor, id))",
    "CREATE TABLE IF NOT EXISTS tidegate_outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        actor TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL,
        name TEXT, payload TEXT, extended TEXT,
        epoch TEXT NOT NULL, version INTEGER NOT NULL, from_version INTEGER NOT NULL,
        at_ms INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS tidegate_outbox_of ON tidegate_outbox (actor, id, seq)",
    "CREATE TABLE IF NOT EXISTS tidegate_timers (
        actor TEXT NOT NULL, id TEXT NOT NULL, timer INTEGER NOT NULL,
        method TEXT NOT NULL, input TEXT, due_ms INTEGER NOT NULL, every_ms INTEGER,
        tries INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (actor, id, timer))",
    "CREATE INDEX IF NOT EXISTS tidegate_timers_due ON tidegate_timers (due_ms)",
    "CREATE TABLE IF NOT EXISTS tidegate_answers (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        actor TEXT NOT NULL, id TEXT NOT NULL, call TEXT NOT NULL, input TEXT NOT NULL,
        outcome TEXT NOT NULL, result TEXT, at_ms INTEGER NOT NULL,
        UNIQUE (actor, id, call))",
    "CREATE TABLE IF NOT EXISTS tidegate_messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        from_actor TEXT NOT NULL, from_id TEXT NOT NULL,
        actor TEXT NOT NULL, id TEXT NOT NULL, method TEXT NOT NULL, input TEXT, key TEXT,
        at_ms INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS tidegate_messages_due ON tidegate_messages (due_ms)",
    "CREATE TABLE IF NOT EXISTS tidegate_queue (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        served INTEGER NOT NULL, wait_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL)",
    VIEW,
    TRIGGER,
];

/// How long a request waits for the tables, which another makes.
const MAKE_WAIT: Duration = Duration::from_secs(10);
/// How often it looks whether they are there: at first, and at last.
const MAKE_LOOK: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(160)];

/// Makes the tables, unless they are there. Where several want to, one does, and the others
/// see that they need not.
pub fn make(database: &Database) -> Result<(), DatabaseError> {
    let until = Instant::now() + MAKE_WAIT;
    let [mut pause, longest] = MAKE_LOOK;
    loop {
        let made = match are_made(database) {
            // With a connection of its own, whose locks end with it.
            Ok(false) => Database::open()
                .and_then(|maker| make_with(&maker))
                // SQLite sees by a read that there are others than this connection knows of; where
                // a trigger asks for one it does not look.
                .and_then(|()| are_made(database).map(drop)),
            Ok(true) => return Ok(()),
            Err(error) => Err(error),
        };
        match made {
            Err(DatabaseError::Busy) if Instant::now() < until => {
                clock::sleep(pause / 2 + clock::jitter(pause));
                pause = (pause * 2).min(longest);
            }
            made => return made,
        }
    }
}

/// What was added last: where all of these are, so are the others.
const LAST: [&str; 3] = ["tidegate_queue", "tidegate_commits_1", "tidegate_commit_1"];

/// Whether all of them are there. They are made at once, but for those that are new.
fn are_made(database: &Database) -> Result<bool, DatabaseError> {
    let found = database.once(
        "SELECT count(*) FROM sqlite_master WHERE name IN (?1, ?2, ?3)",
        &values![LAST[0], LAST[1], LAST[2]],
    )?;
    let found = found.into_iter().next().map(|mut row| row.number());
    Ok(found.transpose()? == Some(LAST.len() as u64))
}

fn make_with(maker: &Database) -> Result<(), DatabaseError> {
    maker.once("PRAGMA busy_timeout = 0", &[])?;
    let mode = maker.once("PRAGMA journal_mode", &[])?.into_iter().next();
    let is_ahead = mode.is_some_and(|mut mode| mode.text().is_ok_and(|mode| mode == "wal"));
    if !is_ahead {
        // What is locked by the commit stays so, since the journal is changed only where
        // nobody else reads.
        maker.once("PRAGMA locking_mode = EXCLUSIVE", &[])?;
    }
    maker.once("BEGIN IMMEDIATE", &[])?;
    // Somebody else may have been faster.
    if are_made(maker)? {
        return Ok(());
    }
    for table in TABLES {
        maker.once(table, &[])?;
    }
    let insert = "INSERT OR IGNORE INTO tidegate_meta (key, value) VALUES (?1, ?2)";
    maker.once(insert, &values!["format", FORMAT])?;
    maker.once(insert, &values!["salt", &clock::random_id(16)])?;
    let insert = "INSERT OR IGNORE INTO tidegate_queue VALUES (1, 0, 0, 0)";
    maker.once(insert, &[])?;
    // SQLite itself waits for those that are reading, and lets no others begin meanwhile.
    maker.once("PRAGMA busy_timeout = 5000", &[])?;
    maker.once("COMMIT", &[])?;
    match is_ahead {
        true => Ok(()),
        false => write_ahead(maker),
    }
}

/// Has readers not wait for writers, nor writers for readers. It sticks to the file.
///
/// Older versions of Spin refuse it, and then everything works more slowly.
fn write_ahead(database: &Database) -> Result<(), DatabaseError> {
    match database.once("PRAGMA journal_mode = WAL", &[]) {
        Err(DatabaseError::Busy) => Err(DatabaseError::Busy),
        _ => Ok(()),
    }
}

/// Refuses tables of another format.
pub fn check_format(found: String) -> Result<(), DatabaseError> {
    match found == FORMAT {
        true => Ok(()),
        false => Err(DatabaseError::OtherFormat {
            found,
            expected: FORMAT,
        }),
    }
}

/// Carries out something that needs the tables, and makes them if they are missing.
pub fn with<T>(
    database: &Database,
    run: impl Fn() -> Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    match run() {
        Err(DatabaseError::NoTables) => {
            make(database)?;
            run()
        }
        done => done,
    }
}

/// The epoch of an actor that has no row yet, and then of its row: the same for all who ask,
/// so that those who subscribe before its first turn miss nothing.
pub fn first_epoch(salt: &str, actor: &str, id: &str) -> String {
    let mut hash = Sha256::new();
    for part in [salt, actor, id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let first = digest.iter().take(6);
    first.map(|byte| format!("{byte:02x}")).collect()
}

/// Makes room in the tables: in the outbox, and for the answers of actors that nobody calls
/// any longer.
pub fn prune(database: &Database, now_ms: u64) -> Result<(), DatabaseError> {
    prune_outbox(database, now_ms)?;
    database.write(
        "DELETE FROM tidegate_answers
         WHERE seq IN (SELECT seq FROM tidegate_answers ORDER BY seq LIMIT ?1) AND at_ms < ?2",
        &values![PRUNED_AT_ONCE, now_ms.saturating_sub(answers_age_ms())],
    )?;
    // Unless it could be done when they were made.
    let _ = write_ahead(database);
    Ok(())
}

/// Makes room in the outbox: forgets what is older than [`OUTBOX_AGE_MS`] or beyond
/// [`OUTBOX_ROWS`], a bounded part of it at a time.
pub fn prune_outbox(database: &Database, now_ms: u64) -> Result<(), DatabaseError> {
    let age_ms = settings::number("TIDEGATE_OUTBOX_AGE_MS", OUTBOX_AGE_MS);
    let rows = settings::number("TIDEGATE_OUTBOX_ROWS", OUTBOX_ROWS);
    database.write(
        "DELETE FROM tidegate_outbox
         WHERE seq IN (SELECT seq FROM tidegate_outbox ORDER BY seq LIMIT ?1)
           AND (at_ms < ?2 OR seq <= (SELECT max(seq) FROM tidegate_outbox) - ?3)",
        &values![PRUNED_AT_ONCE, now_ms.saturating_sub(age_ms), rows],
    )?;
    Ok(())
}

/// How long answers to calls with idempotency keys are kept, in milliseconds.
pub fn answers_age_ms() -> u64 {
    settings::number("TIDEGATE_KEY_TTL_MS", Bounds::DEFAULT.age_ms)
}

/// How long patches and events are kept for those who come back, in milliseconds, unless
/// `TIDEGATE_OUTBOX_AGE_MS` says otherwise.
pub const OUTBOX_AGE_MS: u64 = 10 * 60 * 1000;
/// How many of them are kept, of all actors together, unless `TIDEGATE_OUTBOX_ROWS` says
/// otherwise.
pub const OUTBOX_ROWS: u64 = 100_000;
/// How many are forgotten at a time, while others wait to write.
const PRUNED_AT_ONCE: u64 = 500;
/// In how many rows of the outbox there is one after which room is made in it.
const PRUNED_EVERY: u64 = 128;

/// Whether room is to be made in the outbox, after a commit of so many rows of it: by chance,
/// so that nobody has to count.
pub fn is_time_to_prune(rows: usize) -> bool {
    rows > 0 && clock::random_below(PRUNED_EVERY) < rows as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_an_actors_own() {
        let epoch = first_epoch("salt", "chat", "a");
        assert_eq!(epoch.len(), 12);
        assert_eq!(epoch, first_epoch("salt", "chat", "a"));
        assert_ne!(epoch, first_epoch("salt", "chata", ""));
        assert_ne!(epoch, first_epoch("other", "chat", "a"));
    }

    #[test]
    fn what_was_added_last_is_made() {
        for name in LAST {
            let makes = |statement: &&str| statement.contains(&format!(" IF NOT EXISTS {name} "));
            assert_eq!(
                TABLES.iter().filter(|statement| makes(statement)).count(),
                1,
                "{name}"
            );
        }
    }

    #[test]
    fn tables_of_another_format_are_refused() {
        assert_eq!(check_format("1".to_owned()), Ok(()));
        let error = check_format("2".to_owned()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the database has the format 2, expected 1"
        );
    }
}
