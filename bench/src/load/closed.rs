//! The closed loop: each connection keeps so many calls under way and sends the next one
//! when an answer comes. It finds out how much a server can do; what a user of a slow server
//! would wait is the open loop's to tell.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::call::{Incoming, Method, recognise};
use super::connection::Connection;
use super::recorder::{Latencies, Meter, Outcome, Phase, Recorder};
use crate::server::Server;

/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    /// Calls under way on each.
    pub(crate) depth: usize,
    pub(crate) method: Method,
    pub(crate) actors: u64,
}

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// Which actor a connection calls next.
enum Next {
    /// Any of so many; holds what the choice is made from.
    Any { actors: u64, seed: u64 },
    /// Each of its share once.
    Each { actor: u64, step: u64, end: u64 },
    /// One method, so often.
    Same { left: u64 },
}

impl Next {
    fn actor(&mut self) -> Option<u64> {
        match self {
            Next::Any { actors: 1, .. } => Some(0),
            Next::Any { actors, seed } => {
                // SplitMix64, whose numbers have no order that a cache could learn.
                *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                Some((mixed >> 20) % *actors)
            }
            Next::Each { actor, step, end } => {
                let next = *actor;
                *actor += *step;
                (next < *end).then_some(next)
            }
            Next::Same { left } => {
                *left = left.checked_sub(1)?;
                Some(0)
            }
        }
    }
}

/// Calls for a while.
pub(crate) async fn for_a_while(server: &Server, plan: &Plan, window: Window) -> Result<Outcome> {
    let recorder = Recorder::new(Phase::WarmUp);
    let choose = |number: usize| Next::Any {
        actors: plan.actors,
        seed: number as u64,
    };
    let mut connections = start(server, plan, &recorder, choose).await?;
    let failed = async {
        // Nobody ends before the run is over, unless something is wrong.
        let ended = connections.join_next().await.context("no connection")?;
        ended?.context("ended early")
    };
    let measured = async {
        tokio::time::sleep(window.warm_up).await;
        recorder.enter(Phase::Measuring);
        let meter = Meter::start(server.pid())?;
        tokio::time::sleep(window.measured).await;
        recorder.enter(Phase::Over);
        meter.stop()
    };
    let spent = tokio::select! {
        spent = measured => spent?,
        failed = failed => {
            failed?;
            anyhow::bail!("a connection ended before the run was over");
        }
    };
    join(connections).await?;
    Ok(Outcome::new(&recorder, spent))
}

/// Calls for a while, then on the same connections for another while something else goes on, which
/// `begin` begins. What either was like.
pub(crate) async fn before_and_during(
    server: &Server,
    plan: &Plan,
    before: Window,
    during: Duration,
    begin: impl FnOnce(),
) -> Result<[Latencies; 2]> {
    let recorder = Recorder::new(Phase::WarmUp);
    let choose = |number: usize| Next::Any {
        actors: plan.actors,
        seed: number as u64,
    };
    let mut connections = start(server, plan, &recorder, choose).await?;
    tokio::time::sleep(before.warm_up).await;
    recorder.enter(Phase::Measuring);
    tokio::time::sleep(before.measured).await;
    let (calm, _) = recorder.take();
    begin();
    let ended = tokio::time::timeout(during, connections.join_next()).await;
    if let Ok(ended) = ended {
        ended.context("no connection")??.context("ended early")?;
    }
    // Also answers that come late are of that time.
    recorder.enter(Phase::Ending);
    join(connections).await?;
    let (attacked, _) = recorder.take();
    Ok([calm, attacked])
}

/// Calls each actor of the plan once.
pub(crate) async fn each_once(server: &Server, plan: &Plan) -> Result<Outcome> {
    let step = plan.connections as u64;
    let end = plan.actors;
    to_the_end(server, plan, |number| Next::Each {
        actor: number as u64,
        step,
        end,
    })
    .await
}

/// Calls the first actor so often, on each connection.
pub(crate) async fn so_often(server: &Server, plan: &Plan, times: u64) -> Result<Outcome> {
    to_the_end(server, plan, |_| Next::Same { left: times }).await
}

async fn to_the_end(
    server: &Server,
    plan: &Plan,
    choose: impl Fn(usize) -> Next,
) -> Result<Outcome> {
    let recorder = Recorder::new(Phase::Measuring);
    let meter = Meter::start(server.pid())?;
    let mut connections = start(server, plan, &recorder, choose).await?;
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    Ok(Outcome::new(&recorder, meter.stop()?))
}

async fn start(
    server: &Server,
    plan: &Plan,
    recorder: &Recorder,
    choose: impl Fn(usize) -> Next,
) -> Result<JoinSet<Result<()>>> {
    let mut open = Vec::new();
    for number in 0..plan.connections {
        open.push(Connection::open(server, number).await?);
    }
    let mut connections = JoinSet::new();
    for (number, connection) in open.into_iter().enumerate() {
        let (method, recorder) = (plan.method.clone(), recorder.clone());
        let (next, depth) = (choose(number), plan.depth);
        connections.spawn(drive(connection, method, next, depth, recorder));
    }
    Ok(connections)
}

/// A call's id is its place among those under way.
async fn drive(
    mut connection: Connection,
    method: Method,
    mut next: Next,
    depth: usize,
    recorder: Recorder,
) -> Result<()> {
    let mut text = Vec::new();
    let mut sent = vec![Instant::now(); depth];
    let mut under_way = 0;
    for (id, sent) in sent.iter_mut().enumerate() {
        let Some(actor) = next.actor() else { break };
        method.write(&mut text, id as u64, actor);
        connection.outgoing().text(&text);
        *sent = Instant::now();
        under_way += 1;
    }
    connection.flush().await?;
    while under_way > 0 {
        connection
            .receive(|message, outgoing| {
                let Incoming::Result(id) = recognise(message)? else {
                    return Ok(());
                };
                let sent = sent
                    .get_mut(id as usize)
                    .context("an answer that nobody waits for")?;
                let phase = recorder.answered(sent.elapsed());
                let actor = phase.goes_on().then(|| next.actor()).flatten();
                match actor {
                    Some(actor) => {
                        method.write(&mut text, id, actor);
                        outgoing.text(&text);
                        *sent = Instant::now();
                    }
                    None => under_way -= 1,
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}

async fn join(mut connections: JoinSet<Result<()>>) -> Result<()> {
    let ends = async {
        while let Some(ended) = connections.join_next().await {
            ended??;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, ends)
        .await
        .context("waiting for the last answers")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_actor_once() {
        let mut seen = vec![0; 10];
        for actor in 0..3 {
            let (step, end) = (3, 10);
            let mut next = Next::Each { actor, step, end };
            while let Some(actor) = next.actor() {
                seen[actor as usize] += 1;
            }
        }
        assert_eq!(seen, [1; 10]);
    }

    #[test]
    fn any_means_all_in_time() {
        let mut next = Next::Any {
            actors: 10,
            seed: 1,
        };
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[next.actor().unwrap() as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
    }

    #[test]
    fn the_same_has_an_end() {
        let mut next = Next::Same { left: 2 };
        assert_eq!(
            [next.actor(), next.actor(), next.actor()],
            [Some(0), Some(0), None]
        );
    }
}
