//! Kills a host again and again while it works, and counts what that costs: nothing, or
//! this fails.
//!
//! ```sh
//! cargo xtask torture --rounds 200
//! ```
//!
//! Each round starts the `tidegate` of the program's own profile on the same folder, checks
//! what is there, drives 50 `ledger` actors through WebSockets and HTTP while others follow
//! their states, and sends SIGKILL at a random moment. Files of the store are so short that
//! new ones, compaction and the way of actors out of memory fall under the kills too.
//!
//! Checked is, for each actor:
//!
//! - every entry that a client was told of is there, once;
//! - what nobody was told of is there at most once, and was sent by somebody;
//! - no two callers were told the same number of entries;
//! - what a subscriber was shown is there: its version, and all its entries;
//! - its history goes on: versions never go back and leave no gap, also for subscribers who come
//!   back after a kill with what they hold, and when a copy of the folder is put back, which has
//!   another future (`fork.rs`);
//!
//! and, at the end, that timers and the ends of connections came once (`errands.rs`), and that
//! messages between actors and repeated calls with keys took effect once (`mail.rs`).
//!
//! With `--durability none` it must fail, which shows that it can.

mod errands;
mod fork;
mod load;
mod mail;
mod tally;

use std::time::{Duration, Instant};

use tidegate_tests::{Builder, Folder, Host};

use crate::errands::Errands;
use crate::fork::{Fork, Forks};
use crate::load::Load;
use crate::mail::Mail;
use crate::tally::{Tallies, World};

/// How many actors are driven.
const ACTORS: usize = 50;
/// When the host is killed, from the beginning of the load.
const KILLED_AFTER_MS: std::ops::RangeInclusive<u64> = 20..=400;
/// One start in so many is itself cut short by a kill.
const START_KILLED: u64 = 4;
/// A copy is made of the folder after one round in so many, and put back after the next.
const FORKED: u64 = 5;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let number = |text: Option<String>, default: u64| {
        let number = text.map(|text| text.parse().expect("torture ROUNDS SEED LEVEL"));
        number.unwrap_or(default)
    };
    let rounds = number(arguments.next(), 20);
    let seed = number(arguments.next(), 1);
    let level = arguments.next().unwrap_or_else(|| "strict".to_owned());
    println!("{rounds} rounds with the seed {seed}, durability {level}");
    let mut random = Random(seed);
    let folder = Folder::new();
    let tallies = Tallies::new(ACTORS);
    let errands = Errands::default();
    let mail = Mail::new();
    let mut recoveries = Recoveries::default();
    let mut forks = Forks::default();
    let mut fork = None;
    let mut kills = 0;
    for round in 1..=rounds {
        if random.below(START_KILLED) == 0 {
            // So that recovery is interrupted, too.
            let patience = Duration::from_millis(random.within(1..=300));
            host(&folder, &level).start_and_kill(patience).await;
            kills += 1;
        }
        let host = recoveries.of(host(&folder, &level)).await;
        World::of(&host, ACTORS).await.check(&tallies);
        if round == 1 {
            errands.begin(&host).await;
        }
        let load = Load::start(&host, &tallies, &errands, &mail, random.next()).await;
        let moment = Duration::from_millis(random.within(KILLED_AFTER_MS));
        tokio::time::sleep(moment).await;
        host.kill().await;
        kills += 1;
        load.ended().await;
        if let Some(fork) = fork.take() {
            let put_back: Fork = fork;
            put_back.check(&level, &tallies, &mut forks).await;
        } else if random.below(FORKED) == 0 {
            fork = Some(Fork::of(&folder));
        }
        if tallies.is_wrong() {
            println!("stopped in round {round}");
            break;
        }
    }
    let host = recoveries.of(host(&folder, &level)).await;
    World::of(&host, ACTORS).await.check(&tallies);
    let account = errands.account(&host).await;
    let delivered = mail.account(&host).await;
    println!("kills {kills}");
    println!("{tallies}");
    println!("{account}");
    println!("{delivered}");
    println!("{forks}");
    println!("{recoveries}");
    let wrong = account.wrong.len() + delivered.wrong.len();
    if tallies.is_wrong() || tallies.is_idle() || wrong > 0 {
        println!("FAILED; the same kills again, as far as the machine allows: --seed {seed}");
        std::process::exit(1);
    }
}

fn host(folder: &Folder, level: &str) -> Builder {
    Host::builder()
        .component("lab")
        .durability(level)
        .data(folder.path())
        .set("store.segment-bytes=131072")
        .set("actors.idle-timeout-ms=100")
}

/// How long hosts took from their start until they listened.
#[derive(Default)]
struct Recoveries(Vec<Duration>);

impl Recoveries {
    async fn of(&mut self, host: Builder) -> Host {
        let begun = Instant::now();
        let host = host.start().await;
        self.0.push(begun.elapsed());
        host
    }
}

impl std::fmt::Display for Recoveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all = self.0.clone();
        all.sort_unstable();
        let at = |percent: usize| all[(all.len() - 1) * percent / 100].as_millis();
        write!(
            f,
            "restarts {}, until they listened {} / {} / {} / {} ms (min / median / p95 / max)",
            all.len(),
            at(0),
            at(50),
            at(95),
            at(100)
        )
    }
}

/// SplitMix64: the same numbers for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }
}
