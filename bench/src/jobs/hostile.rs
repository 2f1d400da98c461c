//! What a neighbour notices of an attack: a component with 50 calls under way, before and while
//! another component, or a crowd of clients, asks of the host as much as it can. Beside it, how
//! long `/health` takes to answer, and the most memory that the host holds.

mod attack;
mod priority;
mod uploads;
mod watch;

use anyhow::Result;
use clap::ValueEnum;

pub(crate) use self::attack::Attack;
use self::attack::UnderWay;
use self::priority::Ahead;
use self::watch::Watch;
use super::progress;
use crate::bench::Bench;
use crate::load::call::Method;
use crate::load::closed::{self, Plan, Window};
use crate::report::{Sample, Table};
use crate::server::{Level, Tidegate};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The calls of the neighbour: one on each connection, to one of as many actors.
const UNDER_WAY: usize = 50;

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("hostile", &["attack"]);
    let mut is_ahead = true;
    let attacks = match bench.attacks.as_slice() {
        [] => Attack::value_variants(),
        some => some,
    };
    for attack in attacks {
        let labels = [attack.label().to_owned()];
        progress("hostile", 0, &labels);
        let (sample, was_ahead) = measure(bench, *attack).await?;
        is_ahead &= was_ahead;
        table.add(&labels, sample);
    }
    table.note(format!(
        "A counter on {UNDER_WAY} connections, a call under way on each, on a host with all \
         cores, `--memory` and defaults otherwise; the generators run on the same machine, \
         those of attacks at nice 10, the neighbour's and the probe {}. \
         Before is 3 s, during 15 s. Attacks done: what the host took and did; refused: what it \
         refused or ended. Health: the longest answer of `/health`, asked every 20 ms on a new \
         connection, and whether all were 200. RSS: the most that the host and the processes in \
         which it compiles held.",
        priority::line(is_ahead)
    ));
    Ok(vec![table])
}

/// What was seen, and whether the neighbour had a core whenever it needed one.
async fn measure(bench: &Bench, attack: Attack) -> Result<(Sample, bool)> {
    let host = Tidegate::guarded(Level::Memory).handler("attacker");
    let host = host.start(bench).await?;
    let address = host.server.address();
    attack.prepare(address).await?;
    let plan = Plan {
        connections: UNDER_WAY,
        depth: 1,
        method: Method::increment(),
        actors: UNDER_WAY as u64,
    };
    let window = Window {
        warm_up: Duration::from_millis(500),
        measured: bench
            .scale
            .pick(Duration::from_secs(3), Duration::from_secs(1)),
    };
    let during = bench
        .scale
        .pick(Duration::from_secs(15), Duration::from_secs(4));
    let ahead = Ahead::begin();
    let watch = Watch::begin(address, host.server.pid())?;
    let mut under_way = None;
    let begin = || under_way = Some(attack.begin(address));
    let measured = closed::before_and_during(&host.server, &plan, window, during, begin).await;
    let seen = watch.end();
    let was_ahead = ahead.end();
    // The server goes first, so that nobody waits for its answers.
    host.server.kill().await?;
    let tally = under_way
        .as_ref()
        .map(|attack: &UnderWay| attack.tally.clone());
    drop(under_way);
    let tally = tally.unwrap_or_default();
    let [calm, attacked] = measured?;
    let p99 = [&calm, &attacked].map(|latencies| latencies.micros(0.99) / 1e3);
    let sample = Sample::new()
        .with("p99 before ms", p99[0])
        .with("p99 during ms", p99[1])
        .with("ratio", p99[1] / p99[0])
        .with("longest ms", attacked.longest_micros() / 1e3)
        .with("calls before", calm.count() as f64)
        .with("calls during", attacked.count() as f64)
        .with("attacks done", tally.done.load(Ordering::Relaxed) as f64)
        .with("refused", tally.refused.load(Ordering::Relaxed) as f64)
        .with("health ms", seen.longest_answer.as_secs_f64() * 1e3)
        .with_truth("healthy?", seen.all_were_ok)
        .with("RSS MiB", seen.most_resident as f64 / f64::from(1 << 20));
    Ok((sample, was_ahead))
}
