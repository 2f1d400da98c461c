//! The floors as processes: this very program, told to serve, or to run bare wasmtime.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::Server;
use crate::bench::Bench;
use crate::disk::Folder;
use crate::report::Sample;

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

/// Where wasmtime gets an instance's memory from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Allocator {
    /// From the system, for each anew.
    OnDemand,
    /// From a pool.
    Pooling,
}

impl Allocator {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Allocator::OnDemand => "bare wasmtime, on demand (floor)",
            Allocator::Pooling => "bare wasmtime, pooling (floor)",
        }
    }

    /// What so many counters cost without a server.
    pub(crate) async fn measure(self, bench: &Bench, number: u64) -> Result<Sample> {
        let mut command = Command::new(std::env::current_exe().context("this program's path")?);
        command.args([
            "--bare",
            match self {
                Allocator::OnDemand => "on-demand",
                Allocator::Pooling => "pooling",
            },
        ]);
        command.args(["--number", &number.to_string()]);
        command.arg("--handlers").arg(&bench.handlers);
        let output = command.kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "bare wasmtime: {said}");
        let figures: Value = serde_json::from_slice(&output.stdout)?;
        let figure = |name: &str| figures[name].as_f64().with_context(|| format!("no {name}"));
        Ok(Sample::new()
            .with("RSS bytes each", figure("rss")?)
            .with("cold CPU µs", figure("cold")?)
            .with("again CPU µs", figure("again")?)
            .with("hot CPU µs", figure("hot")?)
            .with("RSS before a call", figure("rssUncalled")?))
    }
}
