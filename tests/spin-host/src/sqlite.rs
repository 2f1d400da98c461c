//! `fermyon:spin/sqlite` over real SQLite files, as Spin's `sqlite-inproc` has them: each
//! connection that a component opens is one of its own, made with its first statement; every
//! statement runs on a thread that may block, and only the first of a text is carried out. The
//! settings are those of the library: a busy timeout of 5 s and the rollback journal.
//!
//! Invariant: a component reaches a database only when the manifest grants it by name.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rusqlite::types::{Value, ValueRef};
use wasmtime::component::Resource;

use crate::bindings::sqlite::{self, Error, QueryResult, RowResult};
use crate::guest::Guest;

/// The only database that every application has.
const DEFAULT: &str = "default";
/// What a query may return, as in Spin.
const MAX_RESULT_BYTES: usize = 128 << 20;

/// Where databases are.
#[derive(Clone)]
pub(crate) struct Databases {
    folder: PathBuf,
}

impl Databases {
    pub(crate) fn new(folder: &Path) -> Databases {
        Databases {
            folder: folder.to_owned(),
        }
    }

    fn open(&self, name: &str) -> Result<Connection, Error> {
        if name != DEFAULT {
            return Err(Error::NoSuchDatabase);
        }
        std::fs::create_dir_all(&self.folder).map_err(|error| Error::Io(error.to_string()))?;
        Ok(Connection {
            file: self.folder.join("sqlite_db.db"),
            opened: OnceLock::new(),
        })
    }
}

/// One open database.
#[expect(unreachable_pub, reason = "the generated bindings name it again")]
pub struct Connection {
    file: PathBuf,
    opened: OnceLock<Arc<Mutex<rusqlite::Connection>>>,
}

impl Connection {
    fn opened(&self) -> Result<Arc<Mutex<rusqlite::Connection>>, Error> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened.clone());
        }
        let opened = rusqlite::Connection::open(&self.file);
        let opened = opened.map_err(|error| Error::Io(error.to_string()))?;
        let opened = Arc::new(Mutex::new(opened));
        Ok(self.opened.get_or_init(|| opened).clone())
    }
}

impl sqlite::Host for Guest {}

impl sqlite::HostConnection for Guest {
    async fn open(
        &mut self,
        database: String,
    ) -> wasmtime::Result<Result<Resource<Connection>, Error>> {
        if !self.component.databases.contains(&database) {
            return Ok(Err(Error::AccessDenied));
        }
        Ok(match self.databases.open(&database) {
            Ok(connection) => Ok(self.table.push(connection)?),
            Err(error) => Err(error),
        })
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<sqlite::Value>,
    ) -> wasmtime::Result<Result<QueryResult, Error>> {
        let connection = match self.table.get(&connection)?.opened() {
            Ok(connection) => connection,
            Err(error) => return Ok(Err(error)),
        };
        let run = move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            query(&connection, &statement, parameters).map_err(|error| Error::Io(error.to_string()))
        };
        Ok(tokio::task::spawn_blocking(run).await?)
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

fn query(
    connection: &rusqlite::Connection,
    statement: &str,
    parameters: Vec<sqlite::Value>,
) -> anyhow::Result<QueryResult> {
    let mut statement = connection.prepare_cached(statement)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let parameters = parameters.into_iter().map(to_sqlite);
    let mut found = statement.query(rusqlite::params_from_iter(parameters))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let mut values = Vec::with_capacity(columns.len());
        for column in 0..columns.len() {
            let value = row.get_ref(column)?;
            bytes += size_of::<sqlite::Value>();
            if let ValueRef::Text(held) | ValueRef::Blob(held) = value {
                bytes += held.len();
            }
            values.push(from_sqlite(value)?);
        }
        anyhow::ensure!(
            bytes <= MAX_RESULT_BYTES,
            "query result exceeds limit of {MAX_RESULT_BYTES} bytes"
        );
        rows.push(RowResult { values });
    }
    Ok(QueryResult { columns, rows })
}

fn to_sqlite(value: sqlite::Value) -> Value {
    match value {
        sqlite::Value::Integer(value) => Value::Integer(value),
        sqlite::Value::Real(value) => Value::Real(value),
        sqlite::Value::Text(value) => Value::Text(value),
        sqlite::Value::Blob(value) => Value::Blob(value),
        sqlite::Value::Null => Value::Null,
    }
}

fn from_sqlite(value: ValueRef<'_>) -> anyhow::Result<sqlite::Value> {
    Ok(match value {
        ValueRef::Null => sqlite::Value::Null,
        ValueRef::Integer(value) => sqlite::Value::Integer(value),
        ValueRef::Real(value) => sqlite::Value::Real(value),
        ValueRef::Text(value) => sqlite::Value::Text(str::from_utf8(value)?.to_owned()),
        ValueRef::Blob(value) => sqlite::Value::Blob(value.to_owned()),
    })
}
