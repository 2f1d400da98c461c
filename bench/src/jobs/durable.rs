//! `increment` under each level of durability. The floor is the disk: a loop that appends a
//! record of about the same length and syncs it, in a folder beside the store's.

use anyhow::Result;

use super::progress;
use crate::bench::Bench;
use crate::disk;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::report::{Sample, Table};
use crate::server::{Host, Level, Tidegate};

/// About what the store appends for an increment; the table shows what it really was.
const RECORD: usize = 128;
const LEVELS: [Level; 4] = [Level::Strict, Level::Relaxed, Level::None, Level::Memory];
const RAW: &str = "raw fdatasync";

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("durable", &["durability", "actors", "connections"]);
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
        for actors in [1, 1_000] {
            for connections in [1, 50] {
                for level in LEVELS {
                    let labels = [
                        level.name().to_owned(),
                        actors.to_string(),
                        connections.to_string(),
                    ];
                    progress("durable", round, &labels);
                    let plan = Plan {
                        connections,
                        depth: 1,
                        method: Method::increment(),
                        actors,
                    };
                    table.add(&labels, measure(bench, level, &plan).await?);
                }
            }
        }
    }
    let floor = raw.to_vec();
    table.ratio(
        "calls per raw fdatasync",
        "calls/s",
        |labels| (labels != floor).then(|| floor.clone()),
        "calls/s",
    );
    table.note(format!(
        "{RAW}: {RECORD} bytes appended and synced in a loop, without a server. \
         Bytes/call: what the store's files grew by."
    ));
    Ok(vec![table])
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
