//! The jobs. Each starts its own servers, lets contestants have their turns one after the
//! other, round by round (A B A B …), and returns tables.

mod actors;
mod durable;
mod fanout;
mod hostile;
mod idle;
mod instructions;
mod limit;
mod recovery;
mod rpc;
mod stages;
mod state_bytes;
mod state_size;
mod tick;

use anyhow::Result;
use clap::ValueEnum;

pub(crate) use self::hostile::Attack;
use crate::bench::Bench;
use crate::report::Table;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Job {
    /// Calls under each level of durability, beside the disk's own syncs and a peer.
    Durable,
    /// What an increment of a large state writes to the disk.
    StateBytes,
    /// What an increment of states of different sizes costs.
    StateSize,
    /// How long a host takes to come back with many actors.
    Recovery,
    /// What an actor costs, in memory, on disk, and to make, beside bare wasmtime.
    Actors,
    /// Calls over WebSocket, beside a bare echo and peers.
    Rpc,
    /// Where the time of one call goes, stage by stage.
    Stages,
    /// One publisher and many subscribers, beside a bare loop of writes and peers.
    Fanout,
    /// What a connection costs that does nothing, beside peers.
    Idle,
    /// More connections than a server may have descriptors, beside peers.
    Limit,
    /// Streams on a clock: how late they are.
    Tick,
    /// What a neighbour notices of handlers and clients that attack the host.
    Hostile,
    /// How many instructions a call takes, and in which crates; needs valgrind.
    Instructions,
}

impl Job {
    /// Those of a run of everything: all that need nothing which the machine may not have.
    pub(crate) fn all() -> impl Iterator<Item = Job> {
        let jobs = Job::value_variants().iter().copied();
        jobs.filter(|job| *job != Job::Instructions)
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) async fn run(self, bench: &Bench) -> Result<Vec<Table>> {
        match self {
            Job::Durable => durable::run(bench).await,
            Job::StateBytes => state_bytes::run(bench).await,
            Job::StateSize => state_size::run(bench).await,
            Job::Recovery => recovery::run(bench).await,
            Job::Actors => actors::run(bench).await,
            Job::Rpc => rpc::run(bench).await,
            Job::Stages => stages::run(bench).await,
            Job::Fanout => fanout::run(bench).await,
            Job::Idle => idle::run(bench).await,
            Job::Limit => limit::run(bench).await,
            Job::Tick => tick::run(bench).await,
            Job::Hostile => hostile::run(bench).await,
            Job::Instructions => instructions::run(bench).await,
        }
    }
}

/// Tells whoever waits what is going on.
fn progress(job: &str, round: usize, labels: &[String]) {
    eprintln!("{job}, round {}: {}", round + 1, labels.join(", "));
}
