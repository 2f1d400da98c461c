//! Everything between a client and the disk, through crashes: queues, turns, the gate, timers,
//! messages, keys, subscriptions, the way out of memory and back, on a simulated disk and a
//! simulated clock.
//!
//! A seed makes a schedule: several lives of one host, in each of which clients do this and that
//! while the disk fails somewhere, the process is killed or stops in order, and perhaps power is
//! lost. The [`books`] know what clients were told, and compare it with what there is. The
//! handlers are the real `lab`, whose instances cost little. The same seed takes the same course:
//! one thread runs it all, and the clock jumps to the next timer when nothing else is left to do.
//!
//! `ACTOR_SEEDS=2000` runs more of them than a test run does, `ACTOR_SEEDS=2000..4000` others,
//! `ACTOR_SEED=17` one of them again, with the log of the host.

mod books;
mod cast;
mod joining;
mod life;
mod moving;
mod schedule;
mod shut_out;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::books::Counts;
use self::schedule::Schedule;

/// The seed that `ACTOR_SEED` names, or those that `ACTOR_SEEDS` says: so many, or from one to
/// another.
fn seeds(count_by_default: u64) -> Vec<u64> {
    let number = |text: &str| text.parse().expect("seeds are numbers");
    if let Ok(seed) = std::env::var("ACTOR_SEED") {
        return vec![number(&seed)];
    }
    let Ok(seeds) = std::env::var("ACTOR_SEEDS") else {
        return (0..count_by_default).collect();
    };
    match seeds.split_once("..") {
        Some((first, end)) => (number(first)..number(end)).collect(),
        None => (0..number(&seeds)).collect(),
    }
}

#[test]
fn what_clients_were_told_holds_whatever_the_disk_does() {
    let seeds = seeds(30);
    cast::components();
    if let [seed] = seeds[..] {
        println!("{:?}", Schedule::new(seed));
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_test_writer()
            .init();
    }
    let began = Instant::now();
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    for seed in &seeds {
        let ran = catch_unwind(AssertUnwindSafe(|| Schedule::new(*seed).run()));
        match ran {
            Ok(Ok(ran)) => counts.add(&ran),
            Ok(Err(wrong)) => failed.push((*seed, wrong.join("\n  "))),
            Err(_) => failed.push((*seed, "a panic".to_owned())),
        }
        if let Some((failed, wrong)) = failed.last().filter(|(failed, _)| failed == seed) {
            println!("run again with ACTOR_SEED={failed}:\n  {wrong}");
        }
    }
    let took = began.elapsed().max(Duration::from_millis(1));
    println!(
        "{} schedules, {:.0} a minute; {counts:?}",
        seeds.len(),
        seeds.len() as f64 / took.as_secs_f64() * 60.0
    );
    assert!(failed.is_empty(), "{} schedules failed", failed.len());
    if seeds.len() >= 30 {
        counts.assert_busy();
    }
}

#[test]
fn a_seed_takes_the_same_course_each_time() {
    for seed in 1..4 {
        let run = || Schedule::new(seed).run().expect("nothing is wrong");
        assert_eq!(run(), run(), "with the seed {seed}");
    }
}
