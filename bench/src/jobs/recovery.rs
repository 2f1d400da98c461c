//! How long a host takes to come back. Many actors are made through the real server; it is
//! killed, or stopped; then it is started on what it left, again and again, and each time
//! killed, so that every start finds the same.
//!
//! The floor is a host on an empty folder, which compiles nothing either.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::progress;
use crate::bench::Bench;
use crate::disk::{self, Folder};
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::load::connection::Connection;
use crate::report::{Sample, Table, number};
use crate::server::{Host, Io, Level, Tidegate, Usage, get};

const CONNECTIONS: usize = 50;
/// Calls under way on each connection while actors are made.
const DEPTH: usize = 64;
/// How long a host may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(300);
/// Old actors that are looked at after each start.
const LOOKED_AT: u64 = 200;

/// How the host ended that left the folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    Stopped,
}

/// How long the store's files are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segments {
    /// As long as they are by default: all actors are in one, which is read whole.
    Default,
    /// So short, in KiB, that most are sealed and have hints.
    Short(u64),
}

impl Segments {
    fn name(self) -> String {
        match self {
            Segments::Default => "64 MiB".to_owned(),
            Segments::Short(kibibytes) => format!("{kibibytes} KiB"),
        }
    }
}

/// What is done to the folder before each start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hints {
    Left,
    Removed,
}

/// A way to come back.
struct Contestant {
    labels: [String; 3],
    folder: PathBuf,
    segments: Segments,
    hints: Hints,
    actors: u64,
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let actors = bench.scale.pick(100_000, 2_000);
    let mut table = Table::new("recovery", &["after", "segments", "hints"]);
    let mut folders = Vec::new();
    let mut contestants = vec![Contestant {
        labels: ["nothing (floor)", "-", "-"].map(str::to_owned),
        folder: bench.folder("empty")?.path().to_owned(),
        segments: Segments::Default,
        hints: Hints::Left,
        actors: 0,
    }];
    let short = Segments::Short(bench.scale.pick(4_096, 64));
    for (end, segments) in [
        (End::Killed, Segments::Default),
        (End::Killed, short),
        (End::Stopped, Segments::Default),
    ] {
        let folder = bench.folder("recovery")?;
        let note = fill(bench, &folder, segments, end, actors).await?;
        table.note(note);
        let after = match end {
            End::Killed => "kill -9",
            End::Stopped => "an orderly stop",
        };
        let hints: &[(Hints, &str)] = match segments {
            Segments::Default => &[(Hints::Left, "-")],
            Segments::Short(_) => &[(Hints::Left, "yes"), (Hints::Removed, "no")],
        };
        for (hints, hinted) in hints {
            contestants.push(Contestant {
                labels: [after.to_owned(), segments.name(), (*hinted).to_owned()],
                folder: folder.path().to_owned(),
                segments,
                hints: *hints,
                actors,
            });
        }
        folders.push(folder);
    }
    for round in 0..bench.scale.pick(5, 2) {
        for contestant in &contestants {
            progress("recovery", round, &contestant.labels);
            table.add(&contestant.labels, come_back(bench, contestant).await?);
        }
    }
    table.note(format!(
        "{actors} counters with one increment each, durability strict. Times count from the \
         start of the process. After each start {LOOKED_AT} old actors were asked for their \
         count: none had lost its increment."
    ));
    Ok(vec![table])
}

fn host_on(folder: &Path, segments: Segments) -> Tidegate {
    let host = Tidegate::new(Level::Strict).data(folder);
    match segments {
        Segments::Default => host,
        Segments::Short(kibibytes) => host.set(format!("store.segment-bytes={}", kibibytes << 10)),
    }
}

/// Makes the actors and ends the host; says how it went.
async fn fill(
    bench: &Bench,
    folder: &Folder,
    segments: Segments,
    end: End,
    actors: u64,
) -> Result<String> {
    eprintln!("recovery: making {actors} actors");
    let host = host_on(folder.path(), segments).start(bench).await?;
    let plan = Plan {
        connections: CONNECTIONS,
        depth: DEPTH,
        method: Method::increment(),
        actors,
    };
    let outcome = closed::each_once(&host.server, &plan).await?;
    ensure!(
        outcome.latencies.count() == actors,
        "not all actors were made"
    );
    let store = host.store();
    let mut note = format!(
        "Made {actors} actors at {} a second, {} µs of CPU each",
        number(outcome.rate()),
        number(outcome.spent.server.as_secs_f64() * 1e6 / actors as f64),
    );
    if segments != Segments::Default {
        until_hinted(&store).await?;
    }
    match end {
        End::Killed => {
            host.server.kill().await?;
            note.push_str(", then killed the host;");
        }
        End::Stopped => {
            let began = Instant::now();
            let status = host.server.stop().await?;
            ensure!(status.success(), "the host stopped with {status}");
            let took = number(began.elapsed().as_secs_f64() * 1e3);
            note.push_str(&format!(", then stopped the host, which took {took} ms;"));
        }
    }
    let bytes = disk::bytes_in(&store, ".log")? as f64;
    note.push_str(&format!(
        " it left {} MiB of log{}.",
        number(bytes / f64::from(1 << 20)),
        match segments {
            Segments::Default => String::new(),
            Segments::Short(_) => format!(", in segments of {}", segments.name()),
        },
    ));
    Ok(note)
}

async fn come_back(bench: &Bench, contestant: &Contestant) -> Result<Sample> {
    let store = contestant.folder.join("store");
    if contestant.hints == Hints::Removed {
        ensure!(
            disk::remove_in(&store, ".hint")? > 0,
            "there were no hints to remove"
        );
    }
    let host = host_on(&contestant.folder, contestant.segments);
    let host = host.start(bench).await?;
    let listening = host.server.began().elapsed();
    let ready = tokio::time::timeout(PATIENCE, ready(&host));
    ready.await.context("waiting for the host to be ready")??;
    let ready = host.server.began().elapsed();
    let (read, used) = (Io::of(host.server.pid())?, Usage::of(host.server.pid())?);
    let mut connection = Connection::open(&host.server, 0).await?;
    // An actor from the middle, which nothing brings to mind.
    let middle = contestant.actors / 2;
    let value = value_of(&mut connection, middle).await?;
    let called = host.server.began().elapsed();
    let expected = if contestant.actors == 0 { "0" } else { "1" };
    ensure!(value == expected, "expected {expected}, found {value}");
    let looked_at = contestant.actors.min(LOOKED_AT);
    for number in 0..looked_at {
        let actor = number * contestant.actors / looked_at;
        let value = value_of(&mut connection, actor).await?;
        ensure!(value == expected, "actor {actor} has {value}: it was lost");
    }
    // The hints that are missing are being made; the next start is to find them.
    if contestant.hints == Hints::Removed {
        until_hinted(&store).await?;
    }
    let sample = Sample::new()
        .with("ms to listen", listening.as_secs_f64() * 1e3)
        .with("ms to ready", ready.as_secs_f64() * 1e3)
        .with("ms to the first answer", called.as_secs_f64() * 1e3)
        .with("MiB read", read.read as f64 / f64::from(1 << 20))
        .with("CPU ms", used.cpu.as_secs_f64() * 1e3);
    host.server.kill().await?;
    Ok(sample)
}

async fn ready(host: &Host) -> Result<()> {
    while get(host.server.address(), "/ready", "").await?.status != 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn until_hinted(store: &Path) -> Result<()> {
    let all_there = async {
        // The newest segment has none.
        while count(store, ".hint")? + 1 < count(store, ".log")? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    let all_there = tokio::time::timeout(PATIENCE, all_there);
    all_there.await.context("waiting for the hints")?
}

fn count(folder: &Path, ending: &str) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        count += usize::from(entry?.file_name().to_string_lossy().ends_with(ending));
    }
    Ok(count)
}

async fn value_of(connection: &mut Connection, actor: u64) -> Result<String> {
    let mut text = Vec::new();
    Method::bare("counter", "value").write(&mut text, actor, actor);
    connection.outgoing().text(&text);
    connection.flush().await?;
    let answer = connection.message().await?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let value = answer.get("result").map(ToString::to_string);
    value.with_context(|| format!("no result: {answer}"))
}
