//! Spin's SQLite, as far as it is used here: one connection a request, one statement a call,
//! and waiting for a database that others write to.
//!
//! Invariant: a statement that found the database locked did nothing, and is tried again until
//! `WAIT_MS` are over, or what is said in their place.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tidegate_core::Failure;

pub use crate::bindings::fermyon::spin::sqlite::Value;

use crate::bindings::fermyon::spin::sqlite;
use crate::commit::OUTPACED;
use crate::queue::{Mark, Waiter};
use crate::{clock, settings};

/// The database that the manifest has to grant.
pub const DATABASE: &str = "default";

/// How long one statement waits for the database while others write, in milliseconds, unless
/// `TIDEGATE_DATABASE_WAIT_MS` says otherwise.
const WAIT_MS: u64 = 10_000;
/// When it is worth trying again after that, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// How long one statement waits for the database while others write, in milliseconds.
pub fn wait_ms() -> u64 {
    settings::number("TIDEGATE_DATABASE_WAIT_MS", WAIT_MS)
}

fn longest_wait() -> Duration {
    Duration::from_millis(wait_ms())
}

/// An open database. What is begun and not committed is rolled back when it is dropped.
pub struct Database {
    connection: sqlite::Connection,
    /// Whether the connection has its settings for writing.
    writes: Cell<bool>,
    waited: Cell<Duration>,
}

/// One row of a result.
#[derive(Debug)]
pub struct Row(std::vec::IntoIter<sqlite::Value>);

/// Why a statement was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// The manifest does not grant the database.
    #[error(
        "the manifest does not grant this component the SQLite database `{DATABASE}`: add \
         `sqlite_databases = [\"{DATABASE}\"]` to it"
    )]
    NotGranted,
    /// Others were writing for as long as one waits here.
    #[error("the database is busy with the writes of others: try again")]
    Busy,
    /// The commit builds on what is no more: another came before it.
    #[error("another commit of the actor came before")]
    Outpaced,
    /// The tables are not there yet.
    #[error("the database has no tables of Tidegate")]
    NoTables,
    /// The tables were made by a version that this one does not know.
    #[error("the database has the format {found}, expected {expected}")]
    OtherFormat {
        /// What is there.
        found: String,
        /// What this version reads and writes.
        expected: &'static str,
    },
    /// Anything else, as the database says it.
    #[error("{0}")]
    Failed(String),
}

impl From<sqlite::Error> for DatabaseError {
    fn from(error: sqlite::Error) -> Self {
        match error {
            sqlite::Error::AccessDenied | sqlite::Error::NoSuchDatabase => Self::NotGranted,
            sqlite::Error::InvalidConnection => Self::Failed("the connection is gone".to_owned()),
            sqlite::Error::DatabaseFull => Self::Failed("the database is full".to_owned()),
            sqlite::Error::Io(text) if names_no_table(&text) => Self::NoTables,
            sqlite::Error::Io(text) if text.contains(OUTPACED) => Self::Outpaced,
            sqlite::Error::Io(text) if text.contains("database is locked") => Self::Busy,
            sqlite::Error::Io(text) if text.contains("database table is locked") => Self::Busy,
            sqlite::Error::Io(text) => Self::Failed(text),
        }
    }
}

/// Whether it is one of ours that is missing. SQLite names the schema too where a trigger asks for
/// it.
fn names_no_table(text: &str) -> bool {
    let missing = ["no such table: tidegate_", "no such table: main.tidegate_"];
    missing.iter().any(|missing| text.contains(missing))
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Failure {
        let message = error.to_string();
        match error {
            DatabaseError::Busy => Failure::store_busy(message, RETRY_AFTER_MS),
            _ => Failure::not_stored(message),
        }
    }
}

impl Database {
    /// Opens it.
    pub fn open() -> Result<Database, DatabaseError> {
        Ok(Database {
            connection: sqlite::Connection::open(DATABASE)?,
            writes: Cell::new(false),
            waited: Cell::default(),
        })
    }

    /// How long its statements have waited so far because others were writing.
    pub fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Carries out one statement that only reads.
    pub fn read(&self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        self.patiently(longest_wait(), |_| self.once(statement, values))
    }

    /// Carries out one statement that writes.
    pub fn write(&self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        self.write_within(longest_wait(), statement, values)
    }

    /// Carries out one statement that writes, and waits for so long at most.
    pub fn write_within(
        &self,
        limit: Duration,
        statement: &str,
        values: &[Value],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.prepare_to_write()?;
        self.patiently(limit, |_| self.once(statement, values))
    }

    /// Carries out one statement that writes, whose values say how long it has waited.
    pub(crate) fn write_noting(
        &self,
        statement: &str,
        values: &mut [Value],
        note: impl Fn(&mut [Value], Option<Duration>),
    ) -> Result<Vec<Row>, DatabaseError> {
        self.prepare_to_write()?;
        self.patiently(longest_wait(), |waited| {
            note(values, waited);
            self.once(statement, values)
        })
    }

    /// Carries out one statement as often as it takes until the database is not locked.
    fn patiently<T>(
        &self,
        limit: Duration,
        mut carry_out: impl FnMut(Option<Duration>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut done = carry_out(None);
        if !matches!(done, Err(DatabaseError::Busy)) {
            return done;
        }
        let begun = Instant::now();
        let mut waiter = Waiter::new(limit);
        while matches!(done, Err(DatabaseError::Busy)) && begun.elapsed() < limit {
            let pause = waiter.next(begun.elapsed(), Mark::read(self));
            clock::sleep(pause.time / 2 + clock::jitter(pause.time));
            if pause.then_try {
                done = carry_out(Some(begun.elapsed()));
            }
        }
        self.waited.set(self.waited.get() + begun.elapsed());
        done
    }

    /// Carries out one statement, whatever comes of it.
    pub(crate) fn once(
        &self,
        statement: &str,
        values: &[Value],
    ) -> Result<Vec<Row>, DatabaseError> {
        let found = self.connection.execute(statement, values)?;
        let rows = found.rows.into_iter();
        Ok(rows.map(|row| Row(row.values.into_iter())).collect())
    }

    /// Sets a connection up that is about to write.
    ///
    /// SQLite's own way of waiting is the more patient the longer it takes: it prefers those
    /// that have just come, and it holds a thread of Spin's meanwhile.
    fn prepare_to_write(&self) -> Result<(), DatabaseError> {
        if self.writes.get() {
            return Ok(());
        }
        self.once("PRAGMA busy_timeout = 0", &[])?;
        if settings::is_relaxed() {
            self.once("PRAGMA synchronous = NORMAL", &[])?;
        }
        self.writes.set(true);
        Ok(())
    }
}

impl Row {
    /// The next column, which must be text.
    pub fn text(&mut self) -> Result<String, DatabaseError> {
        self.optional_text()?.ok_or_else(|| unexpected("a text"))
    }

    /// The next column, which is text or null.
    pub fn optional_text(&mut self) -> Result<Option<String>, DatabaseError> {
        match self.0.next() {
            Some(sqlite::Value::Text(text)) => Ok(Some(text)),
            Some(sqlite::Value::Null) => Ok(None),
            _ => Err(unexpected("a text or null")),
        }
    }

    /// The next column, which must be a number that is not negative.
    pub fn number(&mut self) -> Result<u64, DatabaseError> {
        self.optional_number()?
            .ok_or_else(|| unexpected("a number"))
    }

    /// The next column, which is such a number or null.
    pub fn optional_number(&mut self) -> Result<Option<u64>, DatabaseError> {
        Ok(self.optional_integer()?.map(|number| number.max(0) as u64))
    }

    /// The next column, which must be a number.
    pub fn integer(&mut self) -> Result<i64, DatabaseError> {
        self.optional_integer()?
            .ok_or_else(|| unexpected("a number"))
    }

    fn optional_integer(&mut self) -> Result<Option<i64>, DatabaseError> {
        match self.0.next() {
            Some(sqlite::Value::Integer(number)) => Ok(Some(number)),
            Some(sqlite::Value::Null) => Ok(None),
            _ => Err(unexpected("a number or null")),
        }
    }
}

fn unexpected(expected: &str) -> DatabaseError {
    DatabaseError::Failed(format!(
        "a row of the database is damaged: expected {expected}"
    ))
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Value {
        text.as_str().into()
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// The values of a statement, in their order.
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::database::Value::from($value)),*] };
}
