//! Many connections that do nothing, in a process of their own: this very program, told to open
//! and to hold them. A single process may not have the descriptors for all that a server has.
//!
//! Invariant: whatever a server does to an attempt is counted and no error; what this machine
//! has no room for is one.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{error::Elapsed, timeout};

use super::connection::{Connection, NoUpgrade};
use super::dialect::Dialect;
use crate::server::Server;

/// How long an attempt may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How many attempts are under way at once: fewer than what any server lets wait to be accepted.
const AT_ONCE: usize = 500;

/// Lets this process have as many descriptors as it may.
pub(crate) fn raise_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of descriptors")
}

/// What has become of attempts to open a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Connections that were welcomed.
    pub(crate) opened: usize,
    /// Refused with an answer of HTTP.
    pub(crate) answered: usize,
    /// Closed, reset, or refused by the kernel, without an answer.
    pub(crate) cut_off: usize,
    /// Neither, for as long as an attempt may take.
    pub(crate) waiting: usize,
}

impl Tally {
    /// Counts an attempt, and hands out what it opened.
    pub(crate) fn count(
        &mut self,
        attempt: Result<Result<Connection>, Elapsed>,
    ) -> Result<Option<Connection>> {
        let Ok(attempt) = attempt else {
            self.waiting += 1;
            return Ok(None);
        };
        match attempt {
            Ok(connection) => {
                self.opened += 1;
                return Ok(Some(connection));
            }
            Err(error) if error.is::<NoUpgrade>() => self.answered += 1,
            Err(error) if is_cut_off(&error) => self.cut_off += 1,
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    pub(crate) fn plus(self, other: Tally) -> Tally {
        Tally {
            opened: self.opened + other.opened,
            answered: self.answered + other.answered,
            cut_off: self.cut_off + other.cut_off,
            waiting: self.waiting + other.waiting,
        }
    }

    /// As a line between the processes.
    fn to_line(self) -> String {
        let Tally {
            opened,
            answered,
            cut_off,
            waiting,
        } = self;
        format!("{opened} {answered} {cut_off} {waiting}")
    }

    fn from_line(line: &str) -> Option<Tally> {
        let counts: Option<Vec<usize>> = line.split(' ').map(|count| count.parse().ok()).collect();
        let [opened, answered, cut_off, waiting] = counts?.try_into().ok()?;
        Some(Tally {
            opened,
            answered,
            cut_off,
            waiting,
        })
    }
}

fn is_cut_off(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        )
    })
}

/// The process that holds them. All are closed when this is dropped.
pub(crate) struct Crowd {
    pub(crate) tally: Tally,
    _process: Child,
}

impl Crowd {
    /// Opens as many connections as there are numbers, which spread them over source addresses.
    pub(crate) async fn open(server: &Server, numbers: Range<usize>) -> Result<Crowd> {
        let mut command = Command::new(std::env::current_exe().context("this program's path")?);
        command
            .args(["--crowd", &server.address().to_string()])
            .args(["--dialect", server.dialect().name()])
            .args(["--first", &numbers.start.to_string()])
            .args(["--number", &numbers.len().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().context("starting a crowd")?;
        let output = process.stdout.take().context("stdout is piped")?;
        let line = BufReader::new(output).lines().next_line().await?;
        let tally = line.as_deref().and_then(Tally::from_line);
        Ok(Crowd {
            tally: tally.context("the crowd ended before it had counted")?,
            _process: process,
        })
    }
}

/// Opens connections, says what has become of them, and holds them until its standard input
/// ends, which it does with the process that wants them.
pub(crate) async fn hold(
    server: SocketAddr,
    dialect: Dialect,
    numbers: Range<usize>,
) -> Result<()> {
    raise_limit()?;
    let mut tally = Tally::default();
    let mut open = Vec::new();
    let mut attempts = JoinSet::new();
    for number in numbers {
        if attempts.len() == AT_ONCE
            && let Some(attempt) = attempts.join_next().await
        {
            open.extend(tally.count(attempt?)?);
        }
        attempts.spawn(timeout(PATIENCE, Connection::to(server, dialect, number)));
    }
    while let Some(attempt) = attempts.join_next().await {
        open.extend(tally.count(attempt?)?);
    }
    println!("{}", tally.to_line());
    std::io::stdout().flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_crosses_over_to_another_process() {
        let tally = Tally {
            opened: 4,
            answered: 3,
            cut_off: 2,
            waiting: 1,
        };
        assert_eq!(Tally::from_line(&tally.to_line()), Some(tally));
        assert_eq!(Tally::from_line("1 2 3"), None);
    }

    #[tokio::test]
    async fn nobody_listening_is_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut tally = Tally::default();
        let attempt = timeout(PATIENCE, Connection::to(address, Dialect::Plain, 0)).await;
        assert!(tally.count(attempt).unwrap().is_none());
        assert_eq!(tally.cut_off, 1);
    }
}
