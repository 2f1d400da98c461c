//! One schedule: a disk, and the lives of a host on it.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tidegate_core::ActorKey;
use tidegate_journal as journal;
use tidegate_testkit::disk::{Fault, Loss, SimDisk};

use super::books::{Book, Counts};
use super::cast::{self, Dice, Seen};
use super::life::{Ended, Life};
use crate::config;

/// What its clock shows at first.
const START_MS: u64 = 1_700_000_000_000;
/// A life that lasts this long on its own clock waits for something that never comes.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What is the same in all lives of a schedule, and what passes from one to the next.
pub(super) struct Schedule {
    pub(super) disk: SimDisk,
    pub(super) dice: Dice,
    pub(super) book: Book,
    pub(super) is_strict: bool,
    pub(super) actors: config::Actors,
    pub(super) journal: journal::Settings,
    pub(super) run_ahead: usize,
    /// How long the disk takes at most for what it does.
    pub(super) slowness_ms: usize,
    /// How many in a hundred loads and commits find the store busy.
    pub(super) busy_percent: usize,
    /// What the clock would show if nobody set it.
    pub(super) now_ms: u64,
    /// By how much it was set ahead of that; none where nobody sets it.
    pub(super) ahead_ms: Option<Arc<AtomicI64>>,
    /// What subscribers have in hand, by their number.
    pub(super) seen: Vec<(ActorKey, Option<Seen>)>,
}

/// Those whose states are compared with the books.
pub(super) const LEDGERS: [&str; 5] = ["a", "b", "m", "n", "d"];
pub(super) const CLOCKS: [&str; 2] = ["x", "y"];
pub(super) const SENDERS: [&str; 3] = ["0", "1", "2"];

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule")
            .field("is_strict", &self.is_strict)
            .field("mailbox_items", &self.actors.mailbox_items)
            .field("idle_timeout_ms", &self.actors.idle_timeout_ms)
            .field("run_ahead", &self.run_ahead)
            .field("slowness_ms", &self.slowness_ms)
            .field("busy_percent", &self.busy_percent)
            .field("clock_is_set", &self.ahead_ms.is_some())
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

pub(super) fn all_actors() -> Vec<ActorKey> {
    let ledgers = LEDGERS.iter().map(|id| cast::key("ledger", id));
    let clocks = CLOCKS.iter().map(|id| cast::key("clock", id));
    let visits = [cast::key("visits", "v")];
    ledgers.chain(clocks).chain(visits).collect()
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Schedule {
        cast::components();
        let dice = Dice::new(seed ^ 0x00ac_7045);
        let is_strict = dice.percent(70);
        let append_bytes = 32 << 10;
        let journal = journal::Settings {
            segment_bytes: dice.one_of(&[6_000, 20_000, 100_000]),
            max_append_bytes: append_bytes,
            // Some find it full now and then.
            queue_bytes: append_bytes * dice.one_of(&[1, 1_000]),
            group_bytes: dice.one_of(&[1_000, 100_000]),
            ..journal::Settings::default()
        };
        let actors = config::Actors {
            mailbox_items: dice.one_of(&[2, 6, 10_000]),
            idle_timeout_ms: dice.one_of(&[400, 2_000, 10_000]),
            resident_instances: dice.one_of(&[2, 1_000]),
            ..config::Actors::default()
        };
        let book = Book::default();
        book.lock().is_strict = is_strict;
        let busy_percent = dice.one_of(&[0, 0, 2, 10]);
        book.lock().may_skip_hooks = busy_percent > 0;
        let ahead_ms = dice.percent(30).then(Arc::default);
        book.lock().clock_is_set = ahead_ms.is_some();
        let watched = ["a", "m", "d"].map(|id| cast::key("ledger", id));
        let watched = watched.into_iter().chain([cast::key("clock", "x")]);
        Schedule {
            disk: SimDisk::new(seed),
            book,
            is_strict,
            actors,
            journal,
            run_ahead: dice.one_of(&[0, 1, 4, 64]),
            slowness_ms: dice.one_of(&[1, 4, 4, 60]),
            busy_percent,
            now_ms: START_MS,
            ahead_ms,
            seen: watched.map(|actor| (actor, None)).collect(),
            dice,
        }
    }

    /// Lives several times; gives what has happened, or what was wrong.
    pub(super) fn run(mut self) -> Result<Counts, Vec<String>> {
        let mut kept = None;
        for _ in 0..3 + self.dice.below(5) {
            if self.dice.percent(60) {
                let fault = self.dice.one_of(&Fault::ALL);
                let after = self.dice.below(self.dice.one_of(&[10, 60, 200]));
                self.disk.plan(fault, after as u64);
            }
            self.live(false)?;
            match self.dice.below(10) {
                0..2 => kept = Some(self.disk.copy()),
                2..4 => self.put_back(kept.as_ref()),
                _ => {}
            }
        }
        self.busy_percent = 0;
        self.live(true)?;
        let mut book = self.book.lock();
        book.counts.disk_calls = self.disk.calls();
        Ok(book.counts)
    }

    /// Goes on with the disk as it once was.
    fn put_back(&mut self, kept: Option<&SimDisk>) {
        if let Some(kept) = kept {
            tracing::info!("the disk is put back as it was");
            self.disk = kept.copy();
            self.book.lock().put_back(&all_actors());
        }
    }

    fn live(&mut self, is_last: bool) -> Result<(), Vec<String>> {
        self.book.lock().begin_life();
        let has_fault = !self.disk.has_failed();
        tracing::info!(now_ms = self.now_ms, has_fault, is_last, "a life begins");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let ended = runtime.block_on(async {
            let began = tokio::time::Instant::now();
            let life = Life::run(self, has_fault, is_last);
            let ended = tokio::time::timeout(LONGEST, life).await;
            self.now_ms += began.elapsed().as_millis() as u64;
            ended
        });
        let loss = match self.dice.percent(50) {
            true => Loss::Power,
            false => Loss::Process,
        };
        {
            let mut book = self.book.lock();
            book.counts.faults += u64::from(has_fault && self.disk.has_failed());
            match ended {
                Ok(Ended::Stopped) => book.counts.stops += 1,
                Ok(Ended::Killed) => book.counts.kills += 1,
                Err(_) => book.wrong("a life does not end".to_owned()),
            }
            let is_whole = matches!(ended, Ok(Ended::Stopped));
            let may_lose = !self.is_strict && loss == Loss::Power && !is_whole;
            book.end_life(may_lose, &all_actors());
        }
        // The tasks end as a process does, before anybody could hear of it.
        drop(runtime);
        tracing::info!(now_ms = self.now_ms, ?loss, ?ended, "a life has ended");
        self.disk.restart(loss);
        self.now_ms += self.dice.below(20_000) as u64;
        let wrong = self.book.lock().take_wrong();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong),
        }
    }
}
