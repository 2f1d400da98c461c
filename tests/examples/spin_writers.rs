//! How many writes a second an application on Spin takes from callers that each have an actor
//! of their own, and how long each waits: for every number of callers that is given.
//!
//! ```sh
//! cargo run --release -p tidegate-tests --example spin_writers -- 1 4 50 300
//! ```
//!
//! `burst=500` sends that many calls at once to a database that has no tables yet. With
//! `TIDEGATE_DURABILITY` set, the application has it too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tidegate_tests::spin::{Spin, SpinBuilder};

/// How long each number of callers goes on.
const TIME: Duration = Duration::from_secs(20);

fn counter() -> SpinBuilder {
    let application = Spin::builder().component("counter");
    match std::env::var("TIDEGATE_DURABILITY") {
        Ok(value) => application.variable("TIDEGATE_DURABILITY", &value),
        Err(_) => application,
    }
}

/// Calls once, and says what came of it.
async fn call(on: &Spin, actor: &str) -> String {
    let request = on.post(&format!("/actors/counter/{actor}/increment"));
    match request.json(&json!({"by": 1})).try_send().await {
        None => "broken off".to_owned(),
        Some(answer) if answer.status == 200 => "200".to_owned(),
        Some(answer) => {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            format!("{} {}", answer.status.as_u16(), body["error"])
        }
    }
}

fn print(what: &str, mut took: Vec<(Duration, String)>, span: Duration) {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    took.sort();
    for (_, outcome) in &took {
        *outcomes.entry(outcome).or_default() += 1;
    }
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].0;
    println!(
        "{what}: {:.0} a second, p50 {:.1?}, p99 {:.1?}, longest {:.1?}; {outcomes:?}",
        took.len() as f64 / span.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
}

async fn timed(on: &Spin, actor: &str) -> (Duration, String) {
    let begun = Instant::now();
    let outcome = call(on, actor).await;
    (begun.elapsed(), outcome)
}

async fn burst(calls: usize, actors: usize) {
    let on = counter().start().await;
    let begun = Instant::now();
    let names: Vec<String> = (0..calls).map(|n| format!("a{}", n % actors)).collect();
    let took = join_all(names.iter().map(|name| timed(&on, name))).await;
    let what = format!("{calls} at once to {actors} actors of a new database");
    print(&what, took, begun.elapsed());
    let mut counted = 0;
    for actor in 0..actors {
        let read = on.get(&format!("/actors/counter/a{actor}/state"));
        counted += read.send().await.json()["state"]["count"]
            .as_u64()
            .unwrap_or_default();
    }
    println!("    counted: {counted}");
}

async fn steady(callers: usize) {
    let on = counter().start().await;
    call(&on, "first").await;
    let begun = Instant::now();
    let names: Vec<String> = (0..callers).map(|n| format!("c{n}")).collect();
    let all = names.iter().map(async |name| {
        let mut took = Vec::new();
        while begun.elapsed() < TIME {
            took.push(timed(&on, name).await);
        }
        took
    });
    let took: Vec<_> = join_all(all).await.into_iter().flatten().collect();
    print(&format!("{callers} callers"), took, begun.elapsed());
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for argument in std::env::args().skip(1) {
        let number = |text: &str| text.parse::<usize>().expect("a number");
        match argument.split_once('=') {
            Some(("burst", calls)) => match calls.split_once('/') {
                Some((calls, actors)) => burst(number(calls), number(actors)).await,
                None => burst(number(calls), number(calls)).await,
            },
            _ => steady(number(&argument)).await,
        }
    }
}
