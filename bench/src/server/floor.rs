//! The floors as processes: this very program, told to serve.

use anyhow::{Context, Result};
use tokio::process::Command;

use super::Server;
use crate::bench::Bench;
use crate::disk::Folder;

/// What a server costs that does nothing but what it cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Floor {
    /// Sends every WebSocket message back.
    Echo,
    /// Writes every message to all who subscribe.
    Fanout,
}

impl Floor {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(self, bench: &Bench) -> Result<(Server, Folder)> {
        let folder = bench.folder("floor")?;
        let mut command = Command::new(std::env::current_exe().context("this program's path")?);
        command.arg("--serve").arg(match self {
            Floor::Echo => "echo",
            Floor::Fanout => "fanout",
        });
        let server = Server::start(command, &folder.path().join("log")).await?;
        Ok((server, folder))
    }
}
