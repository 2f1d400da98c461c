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
//! Meanwhile the host's wall clock is set ahead and back. Now and then the folder of a host that is
//! not running is copied, and the copy is served beside the original, with another future.
//!
//! Checked is, for each actor:
//!
//! - every entry that a client was told of is there, once;
//! - what nobody was told of is there at most once, and was sent by somebody;
//! - no two callers were told the same number of entries;
//! - what a subscriber was shown is there: its version, and all its entries;
//! - versions never go back;
//!
//! of watchers that come back after a kill, to the folder or to a copy of it (`watchers.rs`):
//!
//! - patches are contiguous, and none comes twice;
//! - what they hold when they have all is what a fresh read shows;
//!
//! and, at the end, that timers and the ends of connections came once (`errands.rs`), and that
//! messages between actors and repeated calls with keys took effect once (`mail.rs`).
//!
//! With `--durability none` it must fail, which shows that it can.

mod errands;
mod load;
mod mail;
mod restored;
mod tally;
mod watchers;

use std::time::{Duration, Instant};

use tidegate_tests::{Builder, Folder, Host, WallClock};

use crate::errands::{Errands, INTERVAL_MS};
use crate::load::Load;
use crate::mail::Mail;
use crate::tally::{Tallies, World};
use crate::watchers::Watchers;

/// How many actors are driven.
const ACTORS: usize = 50;
/// When the host is killed, from the beginning of the load.
const KILLED_AFTER_MS: std::ops::RangeInclusive<u64> = 20..=400;
/// One start in so many is itself cut short by a kill.
const START_KILLED: u64 = 4;
/// One folder in so many is put back.
const RESTORED: u64 = 4;
/// How far the wall clock is set off at most.
pub(crate) const CLOCK_OFF_MS: u64 = 30_000;
/// By multiples of what.
const CLOCK_STEP_MS: u64 = 25 * INTERVAL_MS;
/// How often it is set within a round.
const CLOCK_STEPS: u64 = 3;

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
    let watchers = Watchers::new(ACTORS);
    let clock = WallClock::new();
    let mut recoveries = Recoveries::default();
    let (mut kills, mut steps, mut restored) = (0, 0, 0);
    for round in 1..=rounds {
        if random.below(START_KILLED) == 0 {
            // So that recovery is interrupted, too.
            let patience = Duration::from_millis(random.within(1..=300));
            host(&folder, &level, &clock).start_and_kill(patience).await;
            kills += 1;
        }
        let copy = (random.below(RESTORED) == 0 && round > 1).then(|| folder.copy());
        let host = recoveries.of(host(&folder, &level, &clock)).await;
        let world = World::of(&host, ACTORS).await;
        let watching = watchers.resume(&host, &world).await;
        world.check(&tallies);
        if round == 1 {
            errands.begin(&host).await;
        }
        let watching = (&watchers, watching);
        let load = Load::start(&host, &tallies, &errands, &mail, watching, random.next()).await;
        let moment = Duration::from_millis(random.within(KILLED_AFTER_MS));
        for _ in 0..CLOCK_STEPS {
            tokio::time::sleep(moment / CLOCK_STEPS as u32).await;
            clock.set_ahead(off_by(&mut random));
            steps += 1;
        }
        host.kill().await;
        kills += 1;
        load.ended().await;
        if let Some(copy) = copy {
            let host = self::host(&copy, &level, &clock).start().await;
            restored::go_on(&host, &watchers, ACTORS, &mut random).await;
            host.kill().await;
            restored += 1;
        }
        if tallies.is_wrong() || watchers.is_wrong() {
            println!("stopped in round {round}");
            break;
        }
    }
    let host = recoveries.of(host(&folder, &level, &clock)).await;
    let world = World::of(&host, ACTORS).await;
    drop(watchers.resume(&host, &world).await);
    world.check(&tallies);
    let account = errands.account(&host, &clock).await;
    let delivered = mail.account(&host).await;
    println!("kills {kills}, steps of the clock {steps}, folders put back {restored}");
    println!("{tallies}");
    println!("{watchers}");
    println!("{account}");
    println!("{delivered}");
    println!("{recoveries}");
    let wrong = account.wrong.len() + delivered.wrong.len();
    if tallies.is_wrong() || tallies.is_idle() || watchers.is_wrong() || wrong > 0 {
        println!("FAILED; the same kills again, as far as the machine allows: --seed {seed}");
        std::process::exit(1);
    }
}

/// How far the wall clock is set off next: by many whole intervals, so that what is due is seen to
/// be on a grid, and what comes twice to do so.
fn off_by(random: &mut Random) -> i64 {
    let most = CLOCK_OFF_MS / CLOCK_STEP_MS;
    (random.below(2 * most + 1) as i64 - most as i64) * CLOCK_STEP_MS as i64
}

fn host(folder: &Folder, level: &str, clock: &WallClock) -> Builder {
    Host::builder()
        .component("lab")
        .durability(level)
        .data(folder.path())
        .clock(clock)
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
