//! Where the time of one call goes: the host times calls on their way, stage by stage. What is
//! left of the round trip belongs to the kernel, the runtime, the sockets and the client.

use anyhow::Result;

use super::progress;
use crate::bench::Bench;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::report::{Sample, Table};
use crate::server::{Host, Level, Tidegate};

/// The stages, as the host names them, and their columns.
const STAGES: [(&str, &str); 7] = [
    ("parse", "parse µs"),
    ("admit", "admit µs"),
    ("queue", "queue µs"),
    ("prepare", "prepare µs"),
    ("handler", "handler µs"),
    ("commit", "commit µs"),
    ("release", "release µs"),
];
/// One message of so many is timed: enough to know, and too few to matter.
const EVERY: &str = "gateway.watch-every=16";

#[derive(Clone, Copy)]
struct Setting {
    level: Level,
    connections: usize,
    depth: usize,
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("stages", &["durability", "connections", "load"]);
    let setting = |level, connections, depth| Setting {
        level,
        connections,
        depth,
    };
    let settings = [
        setting(Level::None, 1, 1),
        setting(Level::None, 1, 16),
        setting(Level::None, 50, 1),
        setting(Level::Strict, 1, 1),
    ];
    for round in 0..bench.scale.rounds() {
        for setting in settings {
            let labels = [
                setting.level.name().to_owned(),
                setting.connections.to_string(),
                format!("{} deep", setting.depth),
            ];
            progress("stages", round, &labels);
            table.add(&labels, measure(bench, setting).await?);
        }
    }
    table.note(
        "`increment` of one counter, a host timing one message in 16 (`tidegate_call_stage_seconds`); \
         means, but for the round trip. With several calls under way, `queue` is the time that they \
         wait for each other, and with `strict` `release` has the disk's.",
    );
    Ok(vec![table])
}

async fn measure(bench: &Bench, setting: Setting) -> Result<Sample> {
    let host = Tidegate::new(setting.level).set(EVERY).start(bench).await?;
    let plan = Plan {
        connections: setting.connections,
        depth: setting.depth,
        method: Method::increment(),
        actors: 1,
    };
    let window = bench.scale.window();
    // What comes first is not what calls cost.
    closed::for_a_while(&host.server, &plan, window).await?;
    let before = seconds(&host).await?;
    let outcome = closed::for_a_while(&host.server, &plan, window).await?;
    let after = seconds(&host).await?;
    let mut sample = Sample::new();
    let mut whole = 0.0;
    for (((_, column), (sum, count)), (old_sum, old_count)) in STAGES.iter().zip(after).zip(before)
    {
        let micros = 1e6 * (sum - old_sum) / (count - old_count);
        whole += micros;
        sample = sample.with(column, micros);
    }
    Ok(sample
        .with("in the host µs", whole)
        .with("round trip p50 µs", outcome.latencies.micros(0.5)))
}

/// For each stage the seconds so far, and of how many calls.
async fn seconds(host: &Host) -> Result<Vec<(f64, f64)>> {
    let mut all = Vec::new();
    for (stage, _) in STAGES {
        let of = |part: &str| format!("tidegate_call_stage_seconds_{part}{{stage=\"{stage}\"}}");
        all.push((
            host.metric(&of("sum")).await?,
            host.metric(&of("count")).await?,
        ));
    }
    Ok(all)
}
