//! What a subscribed connection costs that does nothing, and whether all of them still hear
//! of a change.

use anyhow::{Result, ensure};

use super::progress;
use crate::bench::Bench;
use crate::load::call::{Method, subscription};
use crate::load::closed::{self, Plan};
use crate::load::connection::Connection;
use crate::report::{Sample, Table};
use crate::server::{Level, Tidegate, Usage, resident_bytes};

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let count = bench.scale.pick(10_000, 1_000);
    let mut table = Table::new("idle", &["connections"]);
    let labels = [count.to_string()];
    for round in 0..bench.scale.rounds() {
        progress("idle", round, &labels);
        table.add(&labels, measure(bench, count).await?);
    }
    table.note(
        "WebSockets that subscribe to the state of one counter, on a fresh host; memory after \
         the last snapshot has arrived, and again after all were sent one patch.",
    );
    Ok(vec![table])
}

async fn measure(bench: &Bench, count: usize) -> Result<Sample> {
    let host = Tidegate::new(Level::None).start(bench).await?;
    let plan = Plan {
        connections: 1,
        depth: 1,
        method: Method::increment(),
        actors: 1,
    };
    // What the first call of all brings into memory is no connection's.
    closed::so_often(&host.server, &plan, 100).await?;
    let pid = host.server.pid();
    let (before, cpu) = (resident_bytes(pid)?, Usage::of(pid)?.cpu);
    let mut open = Vec::new();
    for number in 0..count {
        let mut connection = Connection::open(host.server.address(), number).await?;
        let text = subscription("state:sub", "counter", 0);
        connection.outgoing().text(text.as_bytes());
        connection.flush().await?;
        let snapshot = connection.message().await?;
        ensure!(
            snapshot.starts_with(r#"{"type":"state:snapshot""#),
            "{snapshot}"
        );
        open.push(connection);
    }
    let each = |bytes: u64| bytes.saturating_sub(before) as f64 / count as f64;
    let idle = each(resident_bytes(pid)?);
    let cpu = Usage::of(pid)?.cpu - cpu;
    closed::so_often(&host.server, &plan, 1).await?;
    for connection in &mut open {
        let patch = connection.message().await?;
        ensure!(patch.starts_with(r#"{"type":"state:patch""#), "{patch}");
    }
    Ok(Sample::new()
        .with("RSS bytes each", idle)
        .with("after a patch", each(resident_bytes(pid)?))
        .with("CPU µs to open one", cpu.as_secs_f64() * 1e6 / count as f64))
}
