//! One publisher and many subscribers of one actor. The floor is a loop that writes one frame
//! to as many sockets, on the same runtime.

use anyhow::Result;

use super::progress;
use crate::bench::Bench;
use crate::load::fanout::{self, Plan};
use crate::report::{Sample, Table};
use crate::server::{Floor, Level, Tidegate};

/// The length of what is published, without its frame.
const TEXT: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Loop,
    Tidegate,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Loop => "write loop (floor)",
            Who::Tidegate => "tidegate",
        }
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("fanout", &["server", "subscribers", "in flight"]);
    for round in 0..bench.scale.rounds() {
        let many = bench.scale.pick(Some((10_000, 1)), None);
        let many = many.filter(|_| round == 0);
        for (subscribers, depth) in [(1_000, 1), (1_000, 8)].into_iter().chain(many) {
            for who in [Who::Loop, Who::Tidegate] {
                let labels = [
                    who.name().to_owned(),
                    subscribers.to_string(),
                    depth.to_string(),
                ];
                progress("fanout", round, &labels);
                table.add(&labels, measure(bench, who, subscribers, depth).await?);
            }
        }
    }
    let floor = |labels: &[String]| {
        let [who, subscribers, depth] = labels else {
            return None;
        };
        let floor = [Who::Loop.name(), subscribers, depth].map(str::to_owned);
        (who != Who::Loop.name()).then(|| floor.to_vec())
    };
    table.ratio(
        "CPU to the floor",
        "CPU µs/delivery",
        floor,
        "CPU µs/delivery",
    );
    table.note(format!(
        "Events with a text of {TEXT} bytes; times from the call to the last subscriber."
    ));
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
    let outcome = match who {
        Who::Loop => {
            let (server, _folder) = Floor::Fanout.start(bench).await?;
            let publication = move |number| {
                format!(
                    r#"{{"type":"event","actor":"board","actorId":"a0","event":"posted","payload":{{"number":{number},"text":"{text}"}}}}"#
                )
            };
            fanout::for_a_while(&server, plan(Box::new(publication)), window).await?
        }
        Who::Tidegate => {
            let host = Tidegate::new(Level::None).start(bench).await?;
            let publication = move |number| {
                format!(
                    r#"{{"type":"rpc","id":"{number}","actor":"board","actorId":"a0","method":"publish","input":{{"number":{number},"text":"{text}"}}}}"#
                )
            };
            fanout::for_a_while(&host.server, plan(Box::new(publication)), window).await?
        }
    };
    Ok(fanout::sample(&outcome, subscribers))
}
