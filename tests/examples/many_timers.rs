//! What timers cost a host: many actors with one interval each, and nobody watching.
//!
//! ```sh
//! cargo xtask handlers
//! cargo build --workspace --release
//! cargo run --workspace --release --example many_timers -- [ACTORS] [SECONDS]
//! ```
//!
//! It starts the `tidegate` of its own profile and tells which that is. Each of 10 000 actors
//! has `every(1000)`, whose firings count in the actor's state. Over 20 s the host's CPU time
//! (`/proc/PID/stat`) is compared with the wall clock; 100 % is one core. A host that keeps up
//! ticks 20 times.
//!
//! By default a host keeps fewer instances than that, and since all actors take turns, every
//! firing makes one anew. What that costs is the difference to as many actors as there may be
//! instances, and what timers cost the difference to actors without any.

use std::time::{Duration, Instant};

use http::Method;
use tidegate_tests::{Host, actor};

/// How many actors one connection brings about.
const PER_SOCKET: usize = 1_000;
/// One in so many is asked how often it has ticked.
const SAMPLE: usize = 500;

/// As many actors as a host keeps instances, by default.
const RESIDENT: usize = 4_000;

struct Measurement {
    title: &'static str,
    method: &'static str,
    actors: usize,
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| match arguments.next() {
        Some(text) => text.parse().expect("a number"),
        None => default,
    };
    let (actors, seconds) = (number(10_000), number(20));
    let profile = match cfg!(debug_assertions) {
        true => "debug",
        false => "release",
    };
    println!("{seconds} s of a {profile} host");
    let measurements = [
        Measurement {
            title: "no timers",
            method: "tick",
            actors,
        },
        Measurement {
            title: "every(1000), all instances resident",
            method: "start",
            actors: actors.min(RESIDENT),
        },
        Measurement {
            title: "every(1000)",
            method: "start",
            actors,
        },
    ];
    for measurement in measurements {
        measurement.run(seconds).await;
    }
}

impl Measurement {
    async fn run(&self, seconds: usize) {
        let actors = self.actors;
        let host = Host::serving(["roadmap"]).await;
        let begun = Instant::now();
        for first in (0..actors).step_by(PER_SOCKET) {
            let mut socket = host.connect().await;
            let ids = first..(first + PER_SOCKET).min(actors);
            for id in ids.clone() {
                let metronome = actor("metronome", &id.to_string());
                socket.begin_call(&metronome, self.method, None).await;
            }
            for _ in ids {
                let result = socket.expect_type("rpc:result").await;
                assert_eq!(result.get("error"), None);
            }
            socket.close().await;
        }
        let set_up = begun.elapsed().as_secs_f64();

        let ticks = mean_ticks(&host, actors).await;
        let (cpu, wall) = (host.cpu_time(), Instant::now());
        // The host is left alone: to ask it anything would cost it time.
        tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
        let (cpu, wall) = (host.cpu_time() - cpu, wall.elapsed().as_secs_f64());
        let share = 100.0 * cpu.as_secs_f64() / wall;
        let ticked = mean_ticks(&host, actors).await - ticks;
        let per_tick = match ticked > 0.0 {
            true => format!("{:.0} µs", cpu.as_secs_f64() * 1e6 / ticked / actors as f64),
            false => "nothing".to_owned(),
        };
        println!(
            "{actors} actors, {}: {share:.1} % CPU, {per_tick} a tick; {ticked:.1} ticks of an \
             actor in {wall:.1} s; {} MiB resident, {} threads; set up in {set_up:.1} s",
            self.title,
            host.resident_bytes() >> 20,
            host.threads(),
        );
    }
}

async fn mean_ticks(host: &Host, actors: usize) -> f64 {
    let (mut sum, mut asked) = (0, 0);
    for id in (0..actors).step_by(SAMPLE) {
        let path = format!("/actors/metronome/{id}");
        let about = host.admin(Method::GET, &path).send().await.json();
        sum += about["state"]["ticks"].as_u64().expect("a count");
        asked += 1;
    }
    sum as f64 / f64::from(asked)
}
