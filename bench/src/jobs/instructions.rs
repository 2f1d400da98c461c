//! How many instructions calls, publications and beats take, and whose they are: the host under
//! callgrind, which counts each that its process runs. Unlike a time, such a figure is the same on
//! a busy machine.
//!
//! Loads have a fixed number of operations, once and then twice as many: the difference is what
//! operations take, without what begins and ends with a load. What the host does by the clock
//! is set so that it does the same as one that is not sixty times as slow.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::progress;
use crate::bench::Bench;
use crate::compile;
use crate::load::call::{Incoming, Method, recognise, subscription};
use crate::load::connection::Connection;
use crate::load::rounds::{Plan, Rounds};
use crate::profile::{Cost, Profile};
use crate::report::{Sample, Table, number};
use crate::server::{Counter, Level, Server, Tidegate, valgrind_version};

/// Crates that have less everywhere, in hundredths, are shown together.
const SMALL: f64 = 1.0;
/// What they are shown as.
const OTHERS: &str = "others";
/// Who subscribes to what is published.
const SUBSCRIBERS: usize = 1_000;
/// What the host does after so much time, for which it would do a sixtieth of the work here: a
/// connection's own task hands over the calls of a read that it has not run, patches no longer
/// gather, guests look up. A host that runs freely is about done with a round by then.
const UNHURRIED: [&str; 3] = [
    "actors.run-here-us=1000000",
    "actors.gather-ms=1000",
    "engine.epoch-tick-ms=1000",
];

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Calls of one connection, 16 at once.
    Deep,
    /// Calls of 50 connections, one each at once.
    Wide,
    /// Calls whose patch goes to many.
    FanOut,
    /// Beats of a stream that one subscriber looks at.
    Stream,
}

impl Script {
    const ALL: [Script; 4] = [Script::Deep, Script::Wide, Script::FanOut, Script::Stream];

    /// One operation.
    fn name(self) -> &'static str {
        match self {
            Script::Deep => "a call, 1 connection, 16 under way",
            Script::Wide => "a call, 50 connections, 1 under way each",
            Script::FanOut => "a call whose patch goes to 1000 subscribers",
            Script::Stream => "a beat of a stream, 1 subscriber",
        }
    }

    /// Its column among the shares.
    fn share(self) -> &'static str {
        match self {
            Script::Deep => "16 under way %",
            Script::Wide => "50 connections %",
            Script::FanOut => "1000 subscribers %",
            Script::Stream => "a beat %",
        }
    }

    /// How many operations a load has.
    fn operations(self) -> u64 {
        match self {
            Script::Deep | Script::Wide => 2_000,
            Script::FanOut => 20,
            Script::Stream => 200,
        }
    }

    /// Messages to clients that an operation makes, where they are what it is about.
    fn deliveries(self) -> Option<usize> {
        (self == Script::FanOut).then_some(SUBSCRIBERS)
    }

    async fn open(self, server: &Server) -> Result<Load> {
        let (connections, depth, subscribers) = match self {
            Script::Deep => (1, 16, 0),
            Script::Wide => (50, 1, 0),
            Script::FanOut => (1, 1, SUBSCRIBERS),
            Script::Stream => return Ok(Load::Stream(open_stream(server).await?)),
        };
        let plan = Plan {
            connections,
            depth,
            method: Method::increment(),
            subscribers,
        };
        Ok(Load::Rounds(Rounds::open(server, plan).await?))
    }
}

/// The connections of a script.
enum Load {
    Rounds(Rounds),
    Stream(Connection),
}

impl Load {
    /// Gives how many of them clients have seen the end of.
    async fn run(&mut self, operations: u64) -> Result<u64> {
        match self {
            Load::Rounds(rounds) => {
                let calls = rounds.calls();
                ensure!(operations.is_multiple_of(calls), "{operations} of {calls}");
                rounds.run(operations / calls).await?;
                Ok(operations)
            }
            Load::Stream(connection) => beat(connection, operations).await,
        }
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let valgrind = valgrind_version().await?;
    compile::for_valgrind(bench).await?;
    let mut instructions = Table::new("instructions", &["operation"]);
    let mut costs = Vec::new();
    for round in 0..bench.scale.rounds() {
        for script in Script::ALL {
            let labels = [script.name().to_owned()];
            progress("instructions", round, &labels);
            let cost = measure(bench, script)
                .await
                .with_context(|| script.name())?;
            let mut sample = Sample::new().with("instructions", cost.total());
            if let Some(deliveries) = script.deliveries() {
                sample = sample.with("per delivery", cost.total() / deliveries as f64);
            }
            instructions.add(&labels, sample);
            costs.push((script, cost));
        }
    }
    instructions.note(format!(
        "In user space, counted by callgrind ({valgrind}), the host on one worker thread and with \
         `--memory`; what twice as many operations take beyond so many, by their number. {}",
        spread(&costs)
    ));
    Ok(vec![instructions, shares(&costs)])
}

async fn measure(bench: &Bench, script: Script) -> Result<Cost> {
    let host = UNHURRIED
        .into_iter()
        .fold(Tidegate::new(Level::Memory), Tidegate::set)
        .counted()
        .start(bench)
        .await?;
    let mut counter = host.counter().await?;
    let mut load = script.open(&host.server).await?;
    let operations = script.operations();
    // What runs for the first time is slow beyond measure, for beats too.
    load.run(operations).await?;
    counter.reset().await?;
    let once = count(&mut counter, &mut load, operations).await?;
    let twice = count(&mut counter, &mut load, 2 * operations).await?;
    Ok(Profile::of_each(&once, &twice, operations))
}

/// What so many operations take together.
async fn count(counter: &mut Counter, load: &mut Load, operations: u64) -> Result<Profile> {
    let seen = load.run(operations).await?;
    ensure!(
        seen == operations,
        "expected {operations} operations, saw {seen}"
    );
    counter.take().await
}

/// How far rounds are from each other.
fn spread(costs: &[(Script, Cost)]) -> String {
    let of_script = |script: Script| {
        let of_it = costs.iter().filter(move |(other, _)| *other == script);
        let totals: Vec<f64> = of_it.map(|(_, cost)| cost.total()).collect();
        let most = totals.iter().copied().fold(f64::MIN, f64::max);
        let least = totals.iter().copied().fold(f64::MAX, f64::min);
        (totals.len() > 1).then(|| 100.0 * (most - least) / least)
    };
    let spreads: Option<Vec<f64>> = Script::ALL.into_iter().map(of_script).collect();
    match spreads {
        Some(spreads) => {
            let most = spreads.into_iter().fold(0.0, f64::max);
            format!("Rounds differ by {} % at most.", number(most))
        }
        None => "One round.".to_owned(),
    }
}

/// What part of the instructions each crate has.
fn shares(costs: &[(Script, Cost)]) -> Table {
    let mut table = Table::new("instructions by crate", &["crate"]);
    let all: BTreeSet<&str> = costs.iter().flat_map(|(_, cost)| cost.crates()).collect();
    let most = |owner: &str| {
        let shares = costs.iter().map(|(_, cost)| cost.share(owner));
        shares.fold(0.0, f64::max)
    };
    let (mut large, small): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|owner| most(owner) >= SMALL);
    large.sort_by(|one, other| most(other).total_cmp(&most(one)));
    for (script, cost) in costs {
        for owner in &large {
            let sample = Sample::new().with(script.share(), cost.share(owner));
            table.add(&[(*owner).to_owned()], sample);
        }
        let rest = small.iter().map(|owner| cost.share(owner)).sum();
        let sample = Sample::new().with(script.share(), rest);
        table.add(&[OTHERS.to_owned()], sample);
    }
    table.note(
        "A function counts for the crate that has written it or the type that it is a method of, \
         with all that was inlined into it.",
    );
    table
}

/// The actor that streams.
const PULSE: &str = "pulse";

/// A connection that subscribes to the one that streams.
async fn open_stream(server: &Server) -> Result<Connection> {
    let mut connection = Connection::open(server, 0).await?;
    let text = subscription("state:sub", PULSE, 0);
    connection.outgoing().text(text.as_bytes());
    connection.flush().await?;
    connection.message().await.context("the snapshot")?;
    Ok(connection)
}

/// Has the stream beat so often. Gives how many beats were seen.
async fn beat(connection: &mut Connection, times: u64) -> Result<u64> {
    let method = Method {
        actor: PULSE,
        name: "beatSpaced",
        input: format!(r#"{{"times":{times}}}"#),
    };
    let mut text = Vec::new();
    method.write(&mut text, 0, 0);
    connection.outgoing().text(&text);
    connection.flush().await?;
    let (mut patches, mut ended) = (0, false);
    while !ended {
        connection
            .receive(|message, _| {
                ended |= recognise(message)? != Incoming::Other;
                patches += u64::from(message.starts_with(br#"{"type":"state:patch""#));
                Ok(())
            })
            .await?;
    }
    Ok(patches)
}
