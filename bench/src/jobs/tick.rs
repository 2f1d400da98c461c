//! Streams on a clock. Each actor runs a method that changes its state on a grid of its own;
//! a beat is late by what its patch comes later than that grid says, which is laid through the
//! earliest one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::progress;
use crate::bench::Bench;
use crate::load::call::{Incoming, Method, number_after, recognise, subscription};
use crate::load::connection::Connection;
use crate::load::recorder::{Latencies, Meter};
use crate::report::{Sample, Table};
use crate::server::{Level, Server, Tidegate};

/// What is before the number of a beat in a patch.
const BEAT: &[u8] = br#""value":"#;

/// How long streams beat before it counts: that a thousand of them begin within an interval is not
/// what they are like.
const WARM_UP: Duration = Duration::from_secs(1);

/// So many actors that beat, and those who look on.
#[derive(Clone, Copy)]
struct Setting {
    actors: usize,
    subscribers: usize,
    step: Duration,
    method: &'static str,
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let many = bench.scale.pick(1_000, 100);
    let settings = [
        Setting {
            actors: many,
            subscribers: 1,
            step: Duration::from_millis(50),
            method: "beat50",
        },
        Setting {
            actors: 1,
            subscribers: many,
            step: Duration::from_millis(16),
            method: "beat16",
        },
    ];
    let mut table = Table::new("tick", &["actors", "subscribers each", "interval ms"]);
    for round in 0..bench.scale.rounds() {
        for setting in settings {
            let labels = [
                setting.actors.to_string(),
                setting.subscribers.to_string(),
                setting.step.as_millis().to_string(),
            ];
            progress("tick", round, &labels);
            table.add(&labels, measure(bench, setting).await?);
        }
    }
    table.note(
        "Streaming methods on a fresh host, durability none; the actors begin one after the other, \
         spread over an interval, and the first second does not count. Gaps are between two patches \
         of one subscriber.",
    );
    Ok(vec![table])
}

async fn measure(bench: &Bench, setting: Setting) -> Result<Sample> {
    let host = Tidegate::new(Level::None).start(bench).await?;
    let step_ms = setting.step.as_millis() as u64;
    let warm_up = (WARM_UP.as_millis() as u64).div_ceil(step_ms);
    let beats = warm_up + bench.scale.pick(6_000, 2_000) / step_ms;
    let mut subscribers = Vec::new();
    for number in 0..setting.actors * setting.subscribers {
        let (actor, subscriber) = (number / setting.subscribers, number % setting.subscribers);
        let mut connection = subscribe(&host.server, number, actor as u64).await?;
        if subscriber == 0 {
            bring_into_memory(&mut connection, setting.method, actor as u64).await?;
        }
        subscribers.push(connection);
    }
    let meter = Meter::start(host.server.pid())?;
    let mut tasks = JoinSet::new();
    let began = Instant::now() + Duration::from_millis(20);
    for (number, connection) in subscribers.into_iter().enumerate() {
        let (actor, subscriber) = (number / setting.subscribers, number % setting.subscribers);
        // The first subscriber of each actor sets it going.
        let call = (subscriber == 0).then(|| {
            let method = Method {
                actor: "pulse",
                name: setting.method,
                input: format!(r#"{{"times":{beats}}}"#),
            };
            (
                began + setting.step * actor as u32 / setting.actors as u32,
                method,
            )
        });
        tasks.spawn(watch(connection, actor as u64, call, beats));
    }
    let (mut late, mut gaps) = (Latencies::new(), Latencies::new());
    let (mut seen, mut counted) = (0, 0);
    while let Some(arrivals) = tasks.join_next().await {
        let arrivals = arrivals??;
        seen += arrivals.len();
        let begins = arrivals.partition_point(|(beat, _)| *beat <= warm_up);
        counted += arrivals.len() - begins;
        measure_beats(&arrivals[begins..], setting.step, &mut late, &mut gaps);
    }
    let spent = meter.stop()?;
    let expected = setting.actors * setting.subscribers * (beats - warm_up) as usize;
    Ok(Sample::new()
        .with("late p50 µs", late.micros(0.5))
        .with("late p99 µs", late.micros(0.99))
        .with("late max µs", late.micros(1.0))
        .with("gap p1 µs", gaps.micros(0.01))
        .with("gap p99 µs", gaps.micros(0.99))
        .with("beats seen %", 100.0 * counted as f64 / expected as f64)
        .with(
            "CPU µs/beat",
            spent.server.as_secs_f64() * 1e6 / seen as f64,
        )
        .with(
            "generator cores",
            spent.generator.as_secs_f64() / spent.time.as_secs_f64(),
        ))
}

/// Adds one subscriber's beats: number and moment of arrival.
fn measure_beats(
    arrivals: &[(u64, Instant)],
    step: Duration,
    late: &mut Latencies,
    gaps: &mut Latencies,
) {
    let Some((_, first)) = arrivals.first() else {
        return;
    };
    let offsets = arrivals.iter().map(|(beat, at)| {
        at.duration_since(*first).as_secs_f64() - *beat as f64 * step.as_secs_f64()
    });
    let offsets: Vec<f64> = offsets.collect();
    let earliest = offsets.iter().copied().fold(f64::INFINITY, f64::min);
    for offset in offsets {
        late.record(Duration::from_secs_f64(offset - earliest));
    }
    for pair in arrivals.windows(2) {
        gaps.record(pair[1].1.duration_since(pair[0].1));
    }
}

async fn subscribe(server: &Server, number: usize, actor: u64) -> Result<Connection> {
    let mut connection = Connection::open(server, number).await?;
    let text = subscription("state:sub", "pulse", actor);
    connection.outgoing().text(text.as_bytes());
    connection.flush().await?;
    let snapshot = connection.message().await?;
    ensure!(
        snapshot.starts_with(r#"{"type":"state:snapshot""#),
        "{snapshot}"
    );
    Ok(connection)
}

/// Calls an actor, so that it has its instance before the clock counts.
async fn bring_into_memory(
    connection: &mut Connection,
    method: &'static str,
    actor: u64,
) -> Result<()> {
    let method = Method {
        actor: "pulse",
        name: method,
        input: r#"{"times":0}"#.to_owned(),
    };
    let mut text = Vec::new();
    method.write(&mut text, 0, actor);
    connection.outgoing().text(&text);
    connection.flush().await?;
    let answer = connection.message().await?;
    let answered = matches!(recognise(answer.as_bytes())?, Incoming::Result(_));
    ensure!(answered, "{answer}");
    Ok(())
}

/// Looks on until the last beat.
async fn watch(
    mut connection: Connection,
    actor: u64,
    call: Option<(Instant, Method)>,
    beats: u64,
) -> Result<Vec<(u64, Instant)>> {
    if let Some((at, method)) = call {
        // Finer than the runtime's timers, which would have twenty begin at once.
        while Instant::now() < at {
            tokio::task::yield_now().await;
        }
        let mut text = Vec::new();
        method.write(&mut text, 0, actor);
        connection.outgoing().text(&text);
        connection.flush().await?;
    }
    let mut arrivals = Vec::new();
    while arrivals.last().is_none_or(|(beat, _)| *beat < beats) {
        connection
            .receive(|message, _| {
                recognise(message)?;
                if message.starts_with(br#"{"type":"state:patch""#) {
                    let beat = number_after(message, BEAT).with_context(|| {
                        format!("unexpected: {}", String::from_utf8_lossy(message))
                    })?;
                    arrivals.push((beat, Instant::now()));
                }
                Ok(())
            })
            .await?;
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_counts_from_the_earliest_beat() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let arrivals = [(1, at(60)), (2, at(100)), (4, at(203))];
        let (mut late, mut gaps) = (Latencies::new(), Latencies::new());
        measure_beats(&arrivals, Duration::from_millis(50), &mut late, &mut gaps);
        assert!((late.micros(1.0) - 10_000.0).abs() < 50.0);
        assert!((late.micros(0.5) - 3_000.0).abs() < 50.0);
        assert!((gaps.micros(0.01) - 40_000.0).abs() < 100.0);
    }
}
