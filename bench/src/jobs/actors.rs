//! What an actor costs: memory with an instance, without one, and after it has left memory;
//! bytes on disk; processor time to make one, to call it, and to bring it back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::progress;
use crate::bench::Bench;
use crate::disk;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::load::recorder::Outcome;
use crate::report::{Sample, Table};
use crate::server::{Host, Level, Tidegate, resident_bytes};

const CONNECTIONS: usize = 50;
const DEPTH: usize = 4;
/// How long actors may take to leave memory.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the actors are in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In memory, each with its instance.
    Instances,
    /// In memory, the instances dropped.
    Memory,
    /// On disk alone.
    Disk,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Instances => "in memory, with instance",
            Place::Memory => "in memory, without instance",
            Place::Disk => "evicted",
        }
    }

    fn settings(self, actors: u64) -> [String; 2] {
        let (instances, idle_ms) = match self {
            Place::Instances => (actors + 1, 3_600_000),
            Place::Memory => (1, 3_600_000),
            Place::Disk => (1, 200),
        };
        [
            format!("actors.resident-instances={instances}"),
            format!("actors.idle-timeout-ms={idle_ms}"),
        ]
    }

    /// How many, by scale. More instances than that want more memory mappings than most
    /// systems grant a process (`vm.max_map_count`).
    fn actors(self, bench: &Bench) -> u64 {
        match self {
            Place::Instances => bench.scale.pick(4_000, 1_000),
            Place::Memory | Place::Disk => bench.scale.pick(10_000, 1_000),
        }
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("actors", &["actors", "number"]);
    for round in 0..bench.scale.rounds() {
        for place in [Place::Instances, Place::Memory, Place::Disk] {
            let actors = place.actors(bench);
            let labels = [place.name().to_owned(), actors.to_string()];
            progress("actors", round, &labels);
            table.add(&labels, measure(bench, place, actors).await?);
        }
    }
    table.note(
        "Counters, durability strict. RSS each: what the host's memory grew by, divided; of \
         evicted actors it is what the allocator has not given back. Cold: the first call, which \
         makes the actor. Again: the second one; where actors were evicted it brings them back.",
    );
    Ok(vec![table])
}

async fn measure(bench: &Bench, place: Place, actors: u64) -> Result<Sample> {
    let mut host = Tidegate::new(Level::Strict);
    for setting in place.settings(actors) {
        host = host.set(setting);
    }
    let host = host.start(bench).await?;
    // What the first call of all brings into memory is no actor's.
    let plan = |method, actors| Plan {
        connections: CONNECTIONS,
        depth: DEPTH,
        method,
        actors,
    };
    let warm = plan(Method::bare("document", "incrementTracked"), 1);
    closed::so_often(&host.server, &warm, 20).await?;
    let pid = host.server.pid();
    let before = resident_bytes(pid)?;
    let disk_before = disk::bytes_in(&host.store(), ".log")?;
    let increments = plan(Method::increment(), actors);
    let cold = closed::each_once(&host.server, &increments).await?;
    settle(&host, place, actors).await?;
    let memory = resident_bytes(pid)?.saturating_sub(before);
    let stored = disk::bytes_in(&host.store(), ".log")? - disk_before;
    let again = closed::each_once(&host.server, &increments).await?;
    let cpu = |outcome: &Outcome| outcome.spent.server.as_secs_f64() * 1e6 / actors as f64;
    let sample = Sample::new()
        .with("RSS bytes each", memory as f64 / actors as f64)
        .with("disk bytes each", stored as f64 / actors as f64)
        .with("cold CPU µs", cpu(&cold))
        .with("cold/s", cold.rate())
        .with("again CPU µs", cpu(&again))
        .with("again/s", again.rate());
    host.server.kill().await?;
    Ok(sample)
}

/// Waits until the actors are where they are to be.
async fn settle(host: &Host, place: Place, actors: u64) -> Result<()> {
    if place == Place::Disk {
        let gone = async {
            while host.metric("tidegate_actors_in_memory").await? > 0.0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        return tokio::time::timeout(PATIENCE, gone)
            .await
            .context("waiting for the actors to leave memory")?;
    }
    let in_memory = host.metric("tidegate_actors_in_memory").await?;
    ensure!(
        in_memory >= actors as f64,
        "expected {actors} actors in memory, found {in_memory}"
    );
    let instances = host.metric("tidegate_instances").await?;
    let expected = match place {
        Place::Instances => actors as f64..=actors as f64 + 2.0,
        Place::Memory | Place::Disk => 0.0..=16.0,
    };
    ensure!(
        expected.contains(&instances),
        "expected {expected:?} instances, found {instances}"
    );
    Ok(())
}
