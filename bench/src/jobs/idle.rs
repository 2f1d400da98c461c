//! What a subscribed connection costs that does nothing, and whether all of them still hear
//! of a change.

use anyhow::{Context, Result, ensure};

use super::progress;
use crate::bench::Bench;
use crate::load::call::{Method, subscription};
use crate::load::closed::{self, Plan};
use crate::load::connection::Connection;
use crate::report::{Best, Sample, Table};
use crate::server::{Level, Peer, Peers, Server, Tidegate, Usage, resident_bytes};

/// How many connections workerd is given: it ends itself when it runs out of descriptors, of
/// which it takes two for each.
const WORKERD: usize = 4_000;

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("idle", &["server", "connections"]);
    let peers = Peers::among(&Peer::IN_MEMORY, bench);
    let contestants = || std::iter::once(None).chain(peers.present.iter().copied().map(Some));
    let labels_of = |peer: Option<Peer>| {
        let count = bench.scale.pick(10_000, 1_000);
        let count = match peer {
            Some(Peer::Workerd) => count.min(WORKERD),
            _ => count,
        };
        let name = peer.map_or("tidegate", Peer::name).to_owned();
        (count, vec![name, count.to_string()])
    };
    for round in 0..bench.scale.rounds() {
        for peer in contestants() {
            let (count, labels) = labels_of(peer);
            progress("idle", round, &labels);
            let sample = match peer {
                None => {
                    let host = Tidegate::new(Level::None).start(bench).await?;
                    measure(&host.server, count).await
                }
                Some(peer) => {
                    let (server, _folder) = peer.start(bench).await?;
                    measure(&server, count).await
                }
            };
            table.add(&labels, sample.with_context(|| labels.join(", "))?);
        }
    }
    let (_, host) = labels_of(None);
    let (_, bun) = labels_of(Some(Peer::Bun));
    let rss = "RSS bytes each";
    let to_bun = |labels: &[String]| (*labels == host).then(|| bun.clone());
    table.ratio("RSS to Bun", rss, to_bun, rss);
    table.ratio_to_best("RSS to the best peer", rss, Best::Least, |labels| {
        let rivals = peers.present.iter().map(|peer| labels_of(Some(*peer)).1);
        (*labels == host).then(|| rivals.collect())
    });
    table.note(
        "WebSockets that subscribe to the state of one counter, on a fresh server; memory after \
         the last snapshot has arrived, and again after all were sent one patch.",
    );
    for note in peers.notes() {
        table.note(note);
    }
    Ok(vec![table])
}

async fn measure(server: &Server, count: usize) -> Result<Sample> {
    let plan = Plan {
        connections: 1,
        depth: 1,
        method: Method::increment(),
        actors: 1,
    };
    // What the first call of all brings into memory is no connection's.
    closed::so_often(server, &plan, 100).await?;
    let pid = server.pid();
    let (before, cpu) = (resident_bytes(pid)?, Usage::of(pid)?.cpu);
    let mut open = Vec::new();
    for number in 0..count {
        let mut connection = Connection::open(server, number).await?;
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
    closed::so_often(server, &plan, 1).await?;
    for connection in &mut open {
        let patch = connection.message().await?;
        ensure!(patch.starts_with(r#"{"type":"state:patch""#), "{patch}");
    }
    Ok(Sample::new()
        .with("RSS bytes each", idle)
        .with("after a patch", each(resident_bytes(pid)?))
        .with("CPU µs to open one", cpu.as_secs_f64() * 1e6 / count as f64))
}
