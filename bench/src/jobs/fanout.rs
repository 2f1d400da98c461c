//! One publisher and many subscribers of one actor. The floor is a loop that writes one frame
//! to as many sockets, on the same runtime; the peers publish with what each has for that.

use anyhow::{Context, Result};

use super::progress;
use crate::bench::Bench;
use crate::load::fanout::{self, Plan};
use crate::report::{Best, Sample, Table};
use crate::server::{Floor, Level, Peer, Peers, Tidegate};

/// The length of what is published, without its frame.
const TEXT: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Loop,
    Tidegate,
    Peer(Peer),
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Loop => "write loop (floor)",
            Who::Tidegate => "tidegate",
            Who::Peer(peer) => peer.name(),
        }
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("fanout", &["server", "subscribers", "in flight"]);
    let peers = Peers::among(&Peer::IN_MEMORY, bench);
    for round in 0..bench.scale.rounds() {
        let many = bench.scale.pick(Some((10_000, 1)), None);
        let many = many.filter(|_| round == 0);
        for (subscribers, depth) in [(1_000, 1), (1_000, 8)].into_iter().chain(many) {
            let mut all = vec![Who::Loop, Who::Tidegate];
            if subscribers == 1_000 {
                all.extend(peers.present.iter().copied().map(Who::Peer));
            }
            for who in all {
                let labels = [
                    who.name().to_owned(),
                    subscribers.to_string(),
                    depth.to_string(),
                ];
                progress("fanout", round, &labels);
                let sample = measure(bench, who, subscribers, depth).await;
                table.add(&labels, sample.with_context(|| labels.join(", "))?);
            }
        }
    }
    let cpu = "CPU µs/delivery";
    let with = |labels: &[String], who: &str| {
        let mut other = labels.to_vec();
        other[0] = who.to_owned();
        other
    };
    let floor = |labels: &[String]| {
        let floor = with(labels, Who::Loop.name());
        (*labels != floor).then_some(floor)
    };
    table.ratio("CPU to the floor", cpu, floor, cpu);
    let tidegate = |labels: &[String]| labels[0] == Who::Tidegate.name();
    let bun = |labels: &[String]| tidegate(labels).then(|| with(labels, Peer::Bun.name()));
    table.ratio("CPU to Bun", cpu, bun, cpu);
    table.ratio_to_best(
        "rate to the best peer",
        "deliveries/s",
        Best::Most,
        |labels| {
            let rivals = peers.present.iter().map(|peer| with(labels, peer.name()));
            tidegate(labels).then(|| rivals.collect())
        },
    );
    table.note(format!(
        "Events with a text of {TEXT} bytes; times from the call to the last subscriber."
    ));
    for note in peers.notes() {
        table.note(note);
    }
    Ok(vec![table])
}

async fn measure(bench: &Bench, who: Who, subscribers: usize, depth: usize) -> Result<Sample> {
    let window = bench.scale.window();
    let text = "x".repeat(TEXT);
    let plan = |publication| Plan {
        subscribers,
        depth,
        publication,
    };
    let call = {
        let text = text.clone();
        move |number| {
            format!(
                r#"{{"type":"rpc","id":"{number}","actor":"board","actorId":"a0","method":"publish","input":{{"number":{number},"text":"{text}"}}}}"#
            )
        }
    };
    let outcome = match who {
        Who::Loop => {
            let (server, _folder) = Floor::Fanout.start(bench).await?;
            // The event itself, since the floor has nothing to make one of.
            let publication = move |number| {
                format!(
                    r#"{{"type":"event","actor":"board","actorId":"a0","event":"posted","payload":{{"number":{number},"text":"{text}"}}}}"#
                )
            };
            fanout::for_a_while(&server, plan(Box::new(publication)), window).await?
        }
        Who::Tidegate => {
            let host = Tidegate::new(Level::None).start(bench).await?;
            fanout::for_a_while(&host.server, plan(Box::new(call)), window).await?
        }
        Who::Peer(peer) => {
            let (server, _folder) = peer.start(bench).await?;
            fanout::for_a_while(&server, plan(Box::new(call)), window).await?
        }
    };
    Ok(fanout::sample(&outcome, subscribers))
}
