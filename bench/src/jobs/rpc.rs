//! `increment` of one counter over WebSocket. The floor is an echo of the same calls on the
//! same runtime; the peers count in memory, as the host does with durability `none`.

use anyhow::{Context, Result};

use super::progress;
use crate::bench::Bench;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::load::connection::Connection;
use crate::load::open;
use crate::report::{Best, Sample, Table};
use crate::server::{Floor, Level, Peer, Peers, Server, Tidegate};

/// Further clients, where there are any.
const ATTACHED: usize = 1_000;
/// Calls a second of the open loop, on so many connections.
const RATE: f64 = 5_000.0;
/// The number of connections that all loads are tried on.
const MAIN: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Echo,
    Tidegate(Level),
    Peer(Peer),
}

impl Who {
    fn name(self) -> String {
        match self {
            Who::Echo => "echo (floor)".to_owned(),
            Who::Tidegate(level) => format!("tidegate {}", level.name()),
            Who::Peer(peer) => peer.name().to_owned(),
        }
    }
}

/// What all are asked to do.
#[derive(Clone, Copy)]
struct Setting {
    connections: usize,
    load: Load,
    attached: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Load {
    /// So many calls under way on each connection.
    Closed(usize),
    /// So many calls a second on all.
    Open(f64),
}

const SETTINGS: [Setting; 8] = [
    Setting::new(1, Load::Closed(1)),
    Setting::new(1, Load::Closed(16)),
    Setting::new(MAIN, Load::Closed(1)),
    Setting {
        attached: ATTACHED,
        ..Setting::new(MAIN, Load::Closed(1))
    },
    Setting::new(MAIN, Load::Closed(16)),
    Setting::new(256, Load::Closed(1)),
    Setting::new(256, Load::Closed(16)),
    Setting::new(MAIN, Load::Open(RATE)),
];

impl Setting {
    const fn new(connections: usize, load: Load) -> Setting {
        Setting {
            connections,
            load,
            attached: 0,
        }
    }

    fn labels(&self, who: Who) -> Vec<String> {
        let load = match self.load {
            Load::Closed(depth) => format!("{depth} deep"),
            Load::Open(rate) => format!("{rate}/s"),
        };
        let (connections, attached) = (self.connections.to_string(), self.attached.to_string());
        vec![who.name(), connections, load, attached]
    }

    /// Who takes part. To the echo and the disk it is all one who else is connected.
    fn contestants(&self, peers: &Peers) -> Vec<Who> {
        let mut all = match self.attached {
            0 => vec![
                Who::Echo,
                Who::Tidegate(Level::None),
                Who::Tidegate(Level::Strict),
            ],
            _ => vec![Who::Tidegate(Level::None)],
        };
        all.extend(peers.present.iter().copied().map(Who::Peer));
        all
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("rpc", &["server", "connections", "load", "attached"]);
    let peers = Peers::among(&Peer::IN_MEMORY, bench);
    for round in 0..bench.scale.rounds() {
        for setting in SETTINGS {
            for who in setting.contestants(&peers) {
                let labels = setting.labels(who);
                progress("rpc", round, &labels);
                let sample = measure(bench, who, &setting).await;
                table.add(&labels, sample.with_context(|| labels.join(", "))?);
            }
        }
    }
    compare(&mut table, &peers);
    table.note(format!(
        "One counter. Attached: further clients that have called it and wait. Loads in /s are \
         open: {RATE} calls a second whatever comes back, latency from when each was to leave; \
         `late` is how late the generator itself was. Peers hold their counts in memory."
    ));
    for note in peers.notes() {
        table.note(note);
    }
    Ok(vec![table])
}

/// Adds the ratios.
fn compare(table: &mut Table, peers: &Peers) {
    let tidegate = |labels: &[String]| labels[0].starts_with("tidegate");
    let cpu = "CPU µs/call";
    let with = |labels: &[String], who: &str| {
        let mut other = labels.to_vec();
        other[0] = who.to_owned();
        other
    };
    let echo = |labels: &[String]| {
        let mut floor = with(labels, &Who::Echo.name());
        floor[3] = "0".to_owned();
        (*labels != floor).then_some(floor)
    };
    table.ratio("CPU to the floor", cpu, echo, cpu);
    let bun = |labels: &[String]| tidegate(labels).then(|| with(labels, Peer::Bun.name()));
    table.ratio("CPU to Bun", cpu, bun, cpu);
    for (name, figure, best) in [
        ("calls/s to the best peer", "calls/s", Best::Most),
        ("p99 to the best peer", "p99 µs", Best::Least),
    ] {
        table.ratio_to_best(name, figure, best, |labels| {
            let rivals = peers.present.iter().map(|peer| with(labels, peer.name()));
            tidegate(labels).then(|| rivals.collect())
        });
    }
    let alone = |labels: &[String]| {
        let mut alone = labels.to_vec();
        alone[3] = "0".to_owned();
        (*labels != alone).then_some(alone)
    };
    table.ratio("CPU to itself alone", cpu, alone, cpu);
}

async fn measure(bench: &Bench, who: Who, setting: &Setting) -> Result<Sample> {
    match who {
        Who::Echo => {
            let (server, _folder) = Floor::Echo.start(bench).await?;
            load(bench, &server, setting).await
        }
        Who::Peer(peer) => {
            let (server, _folder) = peer.start(bench).await?;
            load(bench, &server, setting).await
        }
        Who::Tidegate(level) => {
            let host = Tidegate::new(level).start(bench).await?;
            load(bench, &host.server, setting).await
        }
    }
}

async fn load(bench: &Bench, server: &Server, setting: &Setting) -> Result<Sample> {
    let attached = attach(server, setting).await?;
    let window = bench.scale.window();
    let method = Method::increment();
    let connections = setting.connections;
    let sample = match setting.load {
        Load::Closed(depth) => {
            let plan = Plan {
                connections,
                depth,
                method,
                actors: 1,
            };
            closed::for_a_while(server, &plan, window).await?.sample()
        }
        Load::Open(rate) => {
            let plan = open::Plan {
                connections,
                method,
                rate,
            };
            let paced = open::at_a_rate(server, &plan, window).await?;
            let late = paced.lateness.micros(0.99);
            paced.outcome.sample().with("late p99 µs", late)
        }
    };
    drop(attached);
    Ok(sample)
}

/// Connections that have had contact with the actor.
async fn attach(server: &Server, setting: &Setting) -> Result<Vec<Connection>> {
    let mut attached = Vec::new();
    let mut text = Vec::new();
    Method::bare("counter", "value").write(&mut text, 0, 0);
    for number in 0..setting.attached {
        let number = setting.connections + number;
        let mut connection = Connection::open(server, number).await?;
        connection.outgoing().text(&text);
        connection.flush().await?;
        connection.message().await?;
        attached.push(connection);
    }
    Ok(attached)
}
