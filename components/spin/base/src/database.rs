//! Spin's SQLite, as far as it is used here: one connection a request, one statement a call.

use tidegate_core::Failure;
use tidegate_core::failure::code;

use crate::bindings::fermyon::spin::sqlite;

/// The database that the manifest has to grant.
pub const DATABASE: &str = "default";

/// An open database. What is begun and not committed is rolled back when it is dropped.
pub struct Database(sqlite::Connection);

/// What a statement is given, and what it returns.
#[derive(Clone, Debug)]
pub struct Value(sqlite::Value);

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
    /// Somebody else is writing, and went on for longer than Spin waits.
    #[error("the database is busy")]
    Busy,
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
            sqlite::Error::Io(text) if text.contains("no such table: tidegate_") => Self::NoTables,
            sqlite::Error::Io(text) if text.contains("database is locked") => Self::Busy,
            sqlite::Error::Io(text) if text.contains("database table is locked") => Self::Busy,
            sqlite::Error::Io(text) => Self::Failed(text),
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Failure {
        Failure::host(code::STORE_UNAVAILABLE).message(error.to_string())
    }
}

impl Database {
    /// Opens it.
    pub fn open() -> Result<Database, DatabaseError> {
        Ok(Database(sqlite::Connection::open(DATABASE)?))
    }

    /// Carries out one statement.
    pub fn run(&self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        let values: Vec<_> = values.iter().map(|value| value.0.clone()).collect();
        let found = self.0.execute(statement, &values)?;
        let rows = found.rows.into_iter();
        Ok(rows.map(|row| Row(row.values.into_iter())).collect())
    }

    /// Carries out several statements as one: all of them, or, when `change` fails, none.
    pub fn transaction<T, E: From<DatabaseError>>(
        &self,
        change: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.run("BEGIN IMMEDIATE", &[])?;
        let done = change().and_then(|done| {
            self.run("COMMIT", &[])?;
            Ok(done)
        });
        if done.is_err() {
            // What cannot be rolled back now is when the connection closes.
            let _ = self.run("ROLLBACK", &[]);
        }
        done
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
        Value(sqlite::Value::Text(text.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Value {
        text.as_str().into()
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value(sqlite::Value::Integer(
            i64::try_from(number).unwrap_or(i64::MAX),
        ))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value(sqlite::Value::Integer(number))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value(sqlite::Value::Null), Into::into)
    }
}

/// The values of a statement, in their order.
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::database::Value::from($value)),*] };
}
