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
//! `ACTOR_SEEDS=2000` runs more of them than a test run does, `ACTOR_SEED=17` one of them again.

mod books;
mod cast;
mod life;
mod schedule;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::books::Counts;
use self::schedule::Schedule;

/// The seed that `ACTOR_SEED` names, or so many as `ACTOR_SEEDS` says.
fn seeds(count_by_default: u64) -> Vec<u64> {
    match std::env::var("ACTOR_SEED") {
        Ok(seed) => vec![seed.parse().expect("ACTOR_SEED is a number")],
        Err(_) => {
            let count = std::env::var("ACTOR_SEEDS").map(|count| count.parse());
            (0..count.map_or(count_by_default, |count| count.expect("a number"))).collect()
        }
    }
}

#[test]
fn what_clients_were_told_holds_whatever_the_disk_does() {
    let seeds = seeds(60);
    cast::components();
    let began = Instant::now();
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    for seed in &seeds {
        let ran = catch_unwind(AssertUnwindSafe(|| Schedule::new(*seed).run()));
        match ran {
            Ok(Ok(ran)) => counts.add(&ran),
            Ok(Err(wrong)) => failed.push((seed, wrong.join("\n  "))),
            Err(_) => failed.push((seed, "a panic".to_owned())),
        }
    }
    let took = began.elapsed().max(Duration::from_millis(1));
    println!(
        "{} schedules, {:.0} a minute; {counts:?}",
        seeds.len(),
        seeds.len() as f64 / took.as_secs_f64() * 60.0
    );
    for (seed, wrong) in &failed {
        println!("run again with ACTOR_SEED={seed}:\n  {wrong}");
    }
    assert!(failed.is_empty(), "{} schedules failed", failed.len());
    if seeds.len() >= 50 {
        counts.assert_busy();
    }
}

#[test]
fn a_seed_takes_the_same_course_each_time() {
    let run = || Schedule::new(7).run().expect("nothing is wrong");
    assert_eq!(run(), run());
}
