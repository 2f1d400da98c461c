//! What an actor costs: memory with an instance, without one, and after it has left memory;
//! bytes on disk; processor time to make one, to call it, and to bring it back. The floor is
//! wasmtime with the same counter and no server; the peer is workerd with an object for each.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::progress;
use crate::bench::Bench;
use crate::disk;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::load::recorder::Outcome;
use crate::report::{Sample, Table};
use crate::server::{Allocator, Host, Level, Peer, Peers, Server, Tidegate, resident_bytes};

const CONNECTIONS: usize = 50;
const DEPTH: usize = 4;
/// Actors that are called before memory is looked at: two for each call under way.
const WARM: u64 = 2 * (CONNECTIONS * DEPTH) as u64;
/// How long actors may take to leave memory.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long after that the memory is read. The host's threads give back what they keep when they
/// next have nothing to do.
const AFTERWARDS: Duration = Duration::from_secs(2);

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
            Place::Instances => "tidegate, with instance",
            Place::Memory => "tidegate, without instance",
            Place::Disk => "tidegate, evicted",
        }
    }

    fn settings(self, actors: u64) -> [String; 2] {
        let (instances, idle_ms) = match self {
            Place::Instances => (actors + WARM + 1, 3_600_000),
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

/// A contestant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Bare(Allocator),
    Tidegate(Place, Level),
    Peer(Peer),
}

impl Who {
    fn labels(self, bench: &Bench) -> Vec<String> {
        let (name, durability) = match self {
            Who::Bare(allocator) => (allocator.name(), "-"),
            Who::Tidegate(place, level) => (place.name(), level.name()),
            Who::Peer(peer) => (peer.name(), "-"),
        };
        let number = self.number(bench).to_string();
        vec![name.to_owned(), durability.to_owned(), number]
    }

    fn number(self, bench: &Bench) -> u64 {
        match self {
            Who::Tidegate(place, _) => place.actors(bench),
            Who::Bare(_) | Who::Peer(_) => Place::Instances.actors(bench),
        }
    }

    async fn measure(self, bench: &Bench) -> Result<Sample> {
        let number = self.number(bench);
        match self {
            Who::Bare(allocator) => allocator.measure(bench, number).await,
            Who::Tidegate(place, level) => measure(bench, place, level, number).await,
            Who::Peer(peer) => measure_peer(bench, peer, number).await,
        }
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("actors", &["actors", "durability", "number"]);
    let peers = Peers::among(&[Peer::WorkerdEach], bench);
    let mut contestants = vec![
        Who::Bare(Allocator::OnDemand),
        Who::Bare(Allocator::Pooling),
        Who::Tidegate(Place::Instances, Level::None),
        Who::Tidegate(Place::Instances, Level::Strict),
        Who::Tidegate(Place::Memory, Level::Strict),
        Who::Tidegate(Place::Disk, Level::Strict),
    ];
    contestants.extend(peers.present.iter().copied().map(Who::Peer));
    for round in 0..bench.scale.rounds() {
        for who in &contestants {
            let labels = who.labels(bench);
            progress("actors", round, &labels);
            let sample = who.measure(bench).await;
            table.add(&labels, sample.with_context(|| labels.join(", "))?);
        }
    }
    let floor = Who::Bare(Allocator::OnDemand).labels(bench);
    for (name, figure) in [
        ("RSS to bare wasmtime", "RSS bytes each"),
        ("cold CPU to bare wasmtime", "cold CPU µs"),
    ] {
        let on_demand = |labels: &[String]| (labels[0] != floor[0]).then(|| floor.clone());
        table.ratio(name, figure, on_demand, figure);
    }
    table.note(
        "Counters. RSS each: what the server's memory grew by, divided; of evicted actors it is \
         their entries in the store's index and what the allocator has not given back. Cold: the first call, which makes the actor. \
         Again: the second one; where actors were evicted it brings them back. Hot: one actor \
         over and over. Bare wasmtime has no connections, no queues and no store; ratios are to \
         the one that gets memory on demand, as the host does.",
    );
    for note in peers.notes() {
        table.note(note);
    }
    Ok(vec![table])
}

/// Calls to so many actors on some connections.
fn calls(method: Method, actors: u64) -> Plan {
    Plan {
        connections: CONNECTIONS,
        depth: DEPTH,
        method,
        actors,
    }
}

async fn measure(bench: &Bench, place: Place, level: Level, actors: u64) -> Result<Sample> {
    let mut host = Tidegate::new(level);
    for setting in place.settings(actors) {
        host = host.set(setting);
    }
    let host = host.start(bench).await?;
    // What the first calls bring into memory, and what the allocator keeps of so many at once, is
    // no actor's.
    let warm = calls(Method::bare("document", "incrementTracked"), WARM);
    closed::each_once(&host.server, &warm).await?;
    settle(&host, place, WARM).await?;
    let stored = || match level {
        Level::Strict => disk::bytes_in(&host.store(), ".log").map(Some),
        _ => Ok(None),
    };
    let disk_before = stored()?;
    let settled = async {
        settle(&host, place, actors + WARM).await?;
        stored()
    };
    let (mut sample, disk_after) = twice(&host.server, actors, settled).await?;
    if let (Some(before), Some(after)) = (disk_before, disk_after) {
        sample = sample.with("disk bytes each", (after - before) as f64 / actors as f64);
    }
    host.server.kill().await?;
    Ok(sample)
}

async fn measure_peer(bench: &Bench, peer: Peer, actors: u64) -> Result<Sample> {
    let (server, _folder) = peer.start(bench).await?;
    // What the first calls of all bring into memory is no actor's, but for one of them.
    let warm = calls(Method::increment(), 1);
    closed::so_often(&server, &warm, 20).await?;
    let (sample, ()) = twice(&server, actors, async { Ok(()) }).await?;
    Ok(sample)
}

/// Calls every actor, waits until they have settled, and calls them again.
async fn twice<T>(
    server: &Server,
    actors: u64,
    settled: impl Future<Output = Result<T>>,
) -> Result<(Sample, T)> {
    let before = resident_bytes(server.pid())?;
    let increments = calls(Method::increment(), actors);
    let cold = closed::each_once(server, &increments).await?;
    let settled = settled.await?;
    let memory = resident_bytes(server.pid())?.saturating_sub(before);
    let again = closed::each_once(server, &increments).await?;
    let cpu = |outcome: &Outcome| outcome.spent.server.as_secs_f64() * 1e6 / actors as f64;
    let sample = Sample::new()
        .with("RSS bytes each", memory as f64 / actors as f64)
        .with("cold CPU µs", cpu(&cold))
        .with("cold/s", cold.rate())
        .with("again CPU µs", cpu(&again))
        .with("again/s", again.rate());
    Ok((sample, settled))
}

/// Waits until the actors are where they are to be.
async fn settle(host: &Host, place: Place, actors: u64) -> Result<()> {
    if place == Place::Disk {
        let gone = async {
            while host.metric("tidegate_actors_in_memory").await? > 0.0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .context("waiting for the actors to leave memory")??;
        tokio::time::sleep(AFTERWARDS).await;
        return Ok(());
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
