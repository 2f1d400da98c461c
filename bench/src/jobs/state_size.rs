//! What an increment costs within documents of different sizes, by the plain path, which encodes
//! and compares the whole state, and by the tracked one, which names the place that changes.
//! The floor is the smallest document.

use anyhow::Result;

use super::progress;
use crate::bench::Bench;
use crate::load::call::Method;
use crate::load::closed::{self, Plan};
use crate::report::{Sample, Table};
use crate::server::{Level, Tidegate};

/// The lengths of the documents, about, in bytes.
const SIZES: [u64; 3] = [1_000, 100_000, 10_000_000];
/// What the state is made of and how the handler counts: names, and the methods that fill the
/// state and count.
const CASES: [(&str, &str, &str, &str); 3] = [
    ("tracked", "texts", "fill", "incrementTracked"),
    ("tracked", "items", "fillWithItems", "incrementItemTracked"),
    ("plain", "texts", "fill", "increment"),
];

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("state-size", &["path", "state of", "state bytes"]);
    for round in 0..bench.scale.rounds() {
        for (path, parts, fill, increment) in CASES {
            for size in SIZES {
                let labels = [path.to_owned(), parts.to_owned(), size.to_string()];
                progress("state-size", round, &labels);
                table.add(&labels, measure(bench, fill, increment, size).await?);
            }
        }
    }
    let smallest = SIZES[0].to_string();
    for (name, figure) in [
        ("CPU to the smallest", "CPU µs/call"),
        ("p50 to the smallest", "p50 µs"),
    ] {
        let floor = |labels: &[String]| {
            let floor = vec![labels[0].clone(), labels[1].clone(), smallest.clone()];
            (*labels != floor).then_some(floor)
        };
        table.ratio(name, figure, floor, figure);
    }
    table.note("One connection, one call at a time, durability none, no subscribers.");
    Ok(vec![table])
}

async fn measure(
    bench: &Bench,
    fill: &'static str,
    increment: &'static str,
    size: u64,
) -> Result<Sample> {
    let host = Tidegate::new(Level::None).start(bench).await?;
    let plan = |method| Plan {
        connections: 1,
        depth: 1,
        method,
        actors: 1,
    };
    let fill = Method {
        actor: "document",
        name: fill,
        input: format!(r#"{{"bytes":{size}}}"#),
    };
    closed::so_often(&host.server, &plan(fill), 1).await?;
    let increment = plan(Method::bare("document", increment));
    let outcome = closed::for_a_while(&host.server, &increment, bench.scale.window()).await?;
    Ok(outcome.sample())
}
