//! `increment` under each level of durability. The floor is the disk: a loop that appends a
//! record of about the same length and syncs it, in a folder beside the store's. The peer is
//! workerd with the storage of its Durable Object on the same disk.

use anyhow::{Context, Result};

use super::progress;
use crate::bench::Bench;
use crate::disk;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::report::{Sample, Table};
use crate::server::{Host, Level, Peer, Peers, Tidegate};

/// About what the store appends for an increment; the table shows what it really was.
const RECORD: usize = 128;
const LEVELS: [Level; 4] = [Level::Strict, Level::Relaxed, Level::None, Level::Memory];
const RAW: &str = "raw fdatasync (floor)";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Tidegate(Level),
    Peer(Peer),
}

impl Who {
    fn name(self) -> String {
        match self {
            Who::Tidegate(level) => format!("tidegate {}", level.name()),
            Who::Peer(peer) => peer.name().to_owned(),
        }
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("durable", &["server", "actors", "connections"]);
    let peers = Peers::among(&[Peer::WorkerdDisk], bench);
    let raw = [RAW, "-", "1"].map(str::to_owned);
    for round in 0..bench.scale.rounds() {
        progress("durable", round, &raw);
        let folder = bench.folder("raw")?;
        let syncs = disk::raw_syncs(folder.path(), RECORD, bench.scale.window().measured)?;
        let sample = Sample::new()
            .with("calls/s", syncs.rate)
            .with("p50 µs", syncs.latencies.micros(0.5))
            .with("p99 µs", syncs.latencies.micros(0.99))
            .with("p99.9 µs", syncs.latencies.micros(0.999));
        table.add(&raw, sample);
        for (who, actors, connections) in contestants(&peers) {
            let labels = [who.name(), actors.to_string(), connections.to_string()];
            progress("durable", round, &labels);
            let plan = Plan {
                connections,
                depth: 1,
                method: Method::increment(),
                actors,
            };
            let sample = match who {
                Who::Tidegate(level) => measure(bench, level, &plan).await,
                Who::Peer(peer) => measure_peer(bench, peer, &plan).await,
            };
            table.add(&labels, sample.with_context(|| labels.join(", "))?);
        }
    }
    let floor = raw.to_vec();
    table.ratio(
        "calls per raw fdatasync",
        "calls/s",
        |labels| (labels != floor).then(|| floor.clone()),
        "calls/s",
    );
    let strict = Who::Tidegate(Level::Strict).name();
    let workerd = |labels: &[String]| {
        let mut workerd = labels.to_vec();
        workerd[0] = Peer::WorkerdDisk.name().to_owned();
        (labels[0] == strict).then_some(workerd)
    };
    for (name, figure) in [
        ("rate to workerd on disk", "calls/s"),
        ("p50 to workerd on disk", "p50 µs"),
    ] {
        table.ratio(name, figure, workerd, figure);
    }
    table.note(format!(
        "{RAW}: {RECORD} bytes appended and synced in a loop, without a server. \
         Bytes/call: what the store's files grew by."
    ));
    for note in peers.notes() {
        table.note(note);
    }
    Ok(vec![table])
}

/// Who is to make calls last, of how many actors, on how many connections. An object of
/// workerd is one actor.
fn contestants(peers: &Peers) -> Vec<(Who, u64, usize)> {
    let mut all = Vec::new();
    for connections in [1, 50] {
        let levels = LEVELS.map(Who::Tidegate);
        let peers = peers.present.iter().copied().map(Who::Peer);
        all.extend(
            levels
                .into_iter()
                .chain(peers)
                .map(|who| (who, 1, connections)),
        );
    }
    // Without a store it is all one how many actors there are.
    let stored = LEVELS.into_iter().filter(|level| *level != Level::Memory);
    all.extend(stored.map(|level| (Who::Tidegate(level), 1_000, 50)));
    all
}

async fn measure_peer(bench: &Bench, peer: Peer, plan: &Plan) -> Result<Sample> {
    let (server, _folder) = peer.start(bench).await?;
    let outcome = closed::for_a_while(&server, plan, bench.scale.window()).await?;
    Ok(outcome.sample())
}

async fn measure(bench: &Bench, level: Level, plan: &Plan) -> Result<Sample> {
    let host = Tidegate::new(level).start(bench).await?;
    // Actors that are new would be written whole within the window.
    let making = Plan {
        connections: plan.connections.min(plan.actors as usize),
        depth: 16,
        ..plan.clone()
    };
    closed::each_once(&host.server, &making).await?;
    let before = stored(&host, level)?;
    let outcome = closed::for_a_while(&host.server, plan, bench.scale.window()).await?;
    let mut sample = outcome.sample();
    if let (Some(before), Some(after)) = (before, stored(&host, level)?) {
        let bytes = after.saturating_sub(before) as f64 / outcome.all_answers.max(1) as f64;
        sample = sample.with("bytes/call", bytes);
    }
    host.server.kill().await?;
    Ok(sample)
}

/// The length of the store's files, where there are any.
fn stored(host: &Host, level: Level) -> Result<Option<u64>> {
    Ok(match level {
        Level::Strict | Level::Relaxed => Some(disk::bytes_in(&host.store(), ".log")?),
        Level::None | Level::Memory => None,
    })
}
