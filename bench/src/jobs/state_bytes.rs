//! What an increment within a large state writes: the kernel's count of bytes that went to
//! the disk, pages and all, over so many increments. Small segments let compaction take part.

use anyhow::Result;

use super::progress;
use crate::bench::Bench;
use crate::disk;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::report::{Sample, Table};
use crate::server::{Io, Level, Tidegate};

/// The length of the state.
const STATE: u64 = 1 << 20;
/// The change itself: the patch of one increment.
const PATCH: &str = r#"{"op":"replace","path":"/count","value":1000}"#;

/// How the handler counts.
#[derive(Clone, Copy)]
struct Path {
    name: &'static str,
    method: &'static str,
    /// Increments, by scale.
    times: (u64, u64),
}

const PATHS: [Path; 2] = [
    Path {
        name: "tracked",
        method: "incrementTracked",
        times: (8_000, 3_000),
    },
    Path {
        name: "plain",
        method: "increment",
        times: (1_000, 200),
    },
];

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("state-bytes", &["path", "durability", "connections"]);
    // Bytes vary little, time does not matter: two rounds show whether they do.
    for round in 0..2 {
        for path in PATHS {
            for (level, connections) in
                [(Level::Strict, 1), (Level::Strict, 16), (Level::Relaxed, 1)]
            {
                let labels = [
                    path.name.to_owned(),
                    level.name().to_owned(),
                    connections.to_string(),
                ];
                progress("state-bytes", round, &labels);
                table.add(&labels, measure(bench, path, level, connections).await?);
            }
        }
    }
    table.note(format!(
        "A state of {STATE} bytes; segments of 4 MiB. Amplification: bytes to the disk per byte \
         of the patch ({} bytes). Bytes to the disk are whole pages.",
        PATCH.len()
    ));
    Ok(vec![table])
}

async fn measure(bench: &Bench, path: Path, level: Level, connections: usize) -> Result<Sample> {
    let host = Tidegate::new(level)
        .set("store.segment-bytes=4194304")
        .start(bench)
        .await?;
    let plan = |connections, method| Plan {
        connections,
        depth: 1,
        method,
        actors: 1,
    };
    let fill = Method {
        actor: "document",
        name: "fill",
        input: format!(r#"{{"bytes":{STATE}}}"#),
    };
    closed::so_often(&host.server, &plan(1, fill), 1).await?;
    let increment = plan(connections, Method::bare("document", path.method));
    closed::so_often(&host.server, &increment, 1).await?;
    let before = Io::of(host.server.pid())?;
    let times = bench.scale.pick(path.times.0, path.times.1) / connections as u64;
    let outcome = closed::so_often(&host.server, &increment, times).await?;
    let after = Io::of(host.server.pid())?;
    let calls = outcome.latencies.count() as f64;
    let each = (after.written - before.written) as f64 / calls;
    let kept = disk::bytes_in(&host.store(), ".log")?;
    let sample = Sample::new()
        .with("bytes to disk/call", each)
        .with("amplification", each / PATCH.len() as f64)
        .with("share of the state %", 100.0 * each / STATE as f64)
        .with("calls", calls)
        .with("store MiB in the end", kept as f64 / f64::from(1 << 20))
        .with("p50 µs", outcome.latencies.micros(0.5))
        .with(
            "CPU µs/call",
            outcome.spent.server.as_secs_f64() * 1e6 / calls,
        );
    host.server.kill().await?;
    Ok(sample)
}
