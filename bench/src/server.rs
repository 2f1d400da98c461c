//! The servers that are measured: each is a process of its own, started on a free port, so
//! that what the kernel says of it is what it used.
//!
//! Invariant: a process does not outlive its [`Server`].

mod callgrind;
mod descriptors;
mod floor;
mod http;
mod peer;
mod tidegate;
mod usage;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::load::dialect::Dialect;
pub(crate) use callgrind::{Counter, uncounted, version as valgrind_version};
pub(crate) use descriptors::Descriptors;
pub(crate) use floor::{Allocator, Floor};
pub(crate) use http::get;
pub(crate) use peer::{Peer, Peers, versions};
pub(crate) use tidegate::{ADMIN_KEY, HANDLERS, Host, Level, Tidegate};
pub(crate) use usage::{Io, Usage, about_resident_bytes_of_all, resident_bytes};

/// What a server prints before the address that it listens on.
const LISTENING: &str = "listening on http://";
/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running server.
pub(crate) struct Server {
    process: Child,
    pid: u32,
    address: SocketAddr,
    dialect: Dialect,
    began: Instant,
}

impl Server {
    /// Starts a program that prints its address, and waits until it has. What it says on
    /// standard error goes to the file `log`.
    async fn start(mut command: Command, log: &Path) -> Result<Server> {
        let errors = std::fs::File::create(log).context("creating the server's log")?;
        let began = Instant::now();
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {:?}", command.as_std().get_program()))?;
        let pid = process.id().context("a process that has just begun")?;
        let output = process.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(output).lines();
        let address = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = address_in(&line) {
                    return Ok(address);
                }
            }
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("the server ended before it listened: {said}");
        };
        let address = tokio::time::timeout(PATIENCE, address)
            .await
            .context("waiting for the server to listen")??;
        // Read on, so that the server never waits for room on its standard output.
        tokio::spawn(async move {
            let mut rest = lines.into_inner();
            let mut nowhere = [0; 1024];
            while rest.read(&mut nowhere).await.is_ok_and(|read| read > 0) {}
        });
        Ok(Server {
            process,
            pid,
            address,
            dialect: Dialect::Plain,
            began,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it wants around messages.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// When its process began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.try_wait().context("asking for the server")
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.process.kill().await.context("killing the server")
    }

    /// Ends it as a service manager does, and waits.
    pub(crate) async fn stop(mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process id")?, Signal::TERM).context("asking to stop")?;
        let ended = tokio::time::timeout(PATIENCE, self.process.wait());
        Ok(ended.await.context("waiting for the server to end")??)
    }
}

/// The address that a server says it listens on, if this line says so: in words, or as workerd
/// does in JSON.
fn address_in(line: &str) -> Option<SocketAddr> {
    if let Some((_, address)) = line.split_once(LISTENING) {
        return address.trim().trim_end_matches('/').parse().ok();
    }
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let port = event.get("port")?.as_u64()?;
    Some((Ipv4Addr::LOCALHOST, u16::try_from(port).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_where_they_listen() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
        let lines = [
            "listening on http://127.0.0.1:4000",
            "tidegate is listening on http://127.0.0.1:4000/",
            r#"{"event":"listen","socket":"http","port":4000}"#,
        ];
        assert_eq!(lines.map(address_in), [Some(address); 3]);
        assert_eq!(address_in("Warning: something"), None);
    }
}
