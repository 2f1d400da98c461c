//! `increment` of one counter over WebSocket. The floor is an echo of the same calls on the
//! same runtime.

use anyhow::{Context, Result};

use super::progress;
use crate::bench::Bench;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::load::connection::Connection;
use crate::load::open;
use crate::report::{Sample, Table};
use crate::server::{Floor, Level, Server, Tidegate};

/// Further clients, where there are any.
const ATTACHED: usize = 1_000;
/// Calls a second of the open loop, on so many connections.
const RATE: f64 = 5_000.0;
const PACED_CONNECTIONS: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Echo,
    Tidegate(Level),
}

impl Who {
    fn name(self) -> String {
        match self {
            Who::Echo => "echo (floor)".to_owned(),
            Who::Tidegate(level) => format!("tidegate {}", level.name()),
        }
    }
}

/// A contestant.
#[derive(Clone, Copy)]
struct Contestant {
    who: Who,
    connections: usize,
    load: Load,
    attached: usize,
}

#[derive(Clone, Copy)]
enum Load {
    /// So many calls under way on each connection.
    Closed(usize),
    /// So many calls a second on all.
    Open(f64),
}

impl Contestant {
    fn labels(&self) -> Vec<String> {
        let load = match self.load {
            Load::Closed(depth) => format!("{depth} deep"),
            Load::Open(rate) => format!("{rate}/s"),
        };
        vec![
            self.who.name(),
            self.connections.to_string(),
            load,
            self.attached.to_string(),
        ]
    }

    fn all() -> Vec<Contestant> {
        let (echo, none) = (Who::Echo, Who::Tidegate(Level::None));
        let strict = Who::Tidegate(Level::Strict);
        let mut all = Vec::new();
        for connections in [1, 50, 256] {
            for depth in [1, 16] {
                for (who, attached) in [(echo, 0), (none, 0), (none, ATTACHED), (strict, 0)] {
                    all.push(Contestant {
                        who,
                        connections,
                        load: Load::Closed(depth),
                        attached,
                    });
                }
            }
        }
        for who in [echo, none, strict] {
            all.push(Contestant {
                who,
                connections: PACED_CONNECTIONS,
                load: Load::Open(RATE),
                attached: 0,
            });
        }
        all
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("rpc", &["server", "connections", "load", "attached"]);
    for round in 0..bench.scale.rounds() {
        for contestant in Contestant::all() {
            let labels = contestant.labels();
            progress("rpc", round, &labels);
            let sample = measure(bench, &contestant)
                .await
                .with_context(|| labels.join(", "))?;
            table.add(&labels, sample);
        }
    }
    let echo = Who::Echo.name();
    let floor = |labels: &[String]| {
        let [who, connections, load, _] = labels else {
            return None;
        };
        let floor = [echo.as_str(), connections, load, "0"].map(str::to_owned);
        (*who != echo).then(|| floor.to_vec())
    };
    table.ratio("CPU to the floor", "CPU µs/call", floor, "CPU µs/call");
    table.note(format!(
        "One counter. Attached: further clients that have called it and wait. Loads in /s are \
         open: {RATE} calls a second whatever comes back, latency from when each was to leave; \
         `late` is how late the generator itself was."
    ));
    Ok(vec![table])
}

async fn measure(bench: &Bench, contestant: &Contestant) -> Result<Sample> {
    match contestant.who {
        Who::Echo => {
            let (server, _folder) = Floor::Echo.start(bench).await?;
            load(bench, &server, contestant).await
        }
        Who::Tidegate(level) => {
            let host = Tidegate::new(level).start(bench).await?;
            load(bench, &host.server, contestant).await
        }
    }
}

async fn load(bench: &Bench, server: &Server, contestant: &Contestant) -> Result<Sample> {
    let attached = attach(server, contestant).await?;
    let window = bench.scale.window();
    let method = Method::increment();
    let connections = contestant.connections;
    let sample = match contestant.load {
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
async fn attach(server: &Server, contestant: &Contestant) -> Result<Vec<Connection>> {
    let mut attached = Vec::new();
    let mut text = Vec::new();
    Method::bare("counter", "value").write(&mut text, 0, 0);
    for number in 0..contestant.attached {
        let number = contestant.connections + number;
        let mut connection = Connection::open(server.address(), number).await?;
        connection.outgoing().text(&text);
        connection.flush().await?;
        connection.message().await?;
        attached.push(connection);
    }
    Ok(attached)
}
