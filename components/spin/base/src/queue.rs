//! Who writes next, where many want to: SQLite has one writer at a time and no queue for it.
//!
//! Whoever had to wait notes with its commit how long that was ([`Mark`]). Others that wait
//! see from it whether their time has come: they look seldom while those before them wait
//! longer, and often once they have waited about as long as those that get their turn. So
//! whoever has waited longest tries most, and who has just come waits behind them, once its first
//! try has found the database busy. Half of the time that one has, it tries whatever others wait.

use std::time::Duration;

use crate::clock;
use crate::database::Database;

/// The shortest time between two tries.
const SHORTEST: Duration = Duration::from_millis(2);
/// The longest time between two tries of those whose time has come.
const LONGEST: Duration = Duration::from_millis(50);
/// The longest time between two looks of those whose time has not come.
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How many of the tries without a mark last twice as long as the one before.
const DOUBLINGS: u32 = 5;
/// How old a mark may be that says something of now, in milliseconds.
pub(crate) const FRESH_MS: u64 = 250;

/// What the last commit that had to wait has noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// How many commits had to wait so far.
    served: u64,
    /// How long the last ones had to wait, on average.
    wait: Duration,
}

/// One that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// For how long at most.
    limit: Duration,
    tries: u32,
    /// How many had been served when its time had come.
    first_served: Option<u64>,
}

/// What one that waits does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// How long it does nothing.
    pub(crate) time: Duration,
    /// Whether it tries then, or only looks again.
    pub(crate) then_try: bool,
}

impl Mark {
    /// The mark, if it was made just now.
    pub(crate) fn read(database: &Database) -> Option<Mark> {
        let rows = database.once("SELECT served, wait_ms, at_ms FROM tidegate_queue", &[]);
        let mut row = rows.ok()?.into_iter().next()?;
        let (served, wait_ms, at_ms) = (row.number().ok()?, row.number().ok()?, row.number().ok()?);
        let is_fresh = clock::unix_ms().abs_diff(at_ms) <= FRESH_MS;
        is_fresh.then_some(Mark {
            served,
            wait: Duration::from_millis(wait_ms),
        })
    }
}

impl Waiter {
    /// One that waits for so long at most.
    pub(crate) fn new(limit: Duration) -> Waiter {
        Waiter {
            limit,
            tries: 0,
            first_served: None,
        }
    }

    /// What one does that has waited so long.
    pub(crate) fn next(&mut self, waited: Duration, mark: Option<Mark>) -> Pause {
        let Some(mark) = mark else {
            let time = SHORTEST * (1 << self.tries.min(DOUBLINGS));
            self.tries += 1;
            let then_try = true;
            return Pause { time, then_try };
        };
        // Not all of it: those before one may be fewer by now, and may have more time.
        let ahead = (mark.wait * 3 / 4).min(self.limit / 2);
        let ahead = ahead.saturating_sub(waited);
        if ahead > SHORTEST {
            self.first_served = None;
            let time = (ahead / 2).clamp(SHORTEST, LONGEST_LOOK);
            let then_try = false;
            return Pause { time, then_try };
        }
        // The more were faster although its time has come, the more there are like it.
        let first = *self.first_served.get_or_insert(mark.served);
        let others = u32::try_from(mark.served.saturating_sub(first)).unwrap_or(u32::MAX);
        let time = Duration::from_millis(1).saturating_mul(others) / 2;
        Pause {
            time: time.clamp(SHORTEST, LONGEST),
            then_try: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn mark(served: u64, wait_ms: u64) -> Option<Mark> {
        let wait = Duration::from_millis(wait_ms);
        Some(Mark { served, wait })
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn who_has_waited_longest_tries_most() {
        let mut old = Waiter::new(LIMIT);
        let mut young = Waiter::new(LIMIT);
        let old = old.next(ms(1_000), mark(7, 1_000));
        let young = young.next(ms(10), mark(7, 1_000));
        assert!(old.then_try && !young.then_try, "{old:?}, {young:?}");
        assert!(old.time < young.time, "{old:?}, {young:?}");
    }

    #[test]
    fn the_time_of_one_that_waits_comes() {
        let (mut waiter, mut waited, mut looks) = (Waiter::new(LIMIT), Duration::ZERO, 0);
        loop {
            let pause = waiter.next(waited, mark(7, 2_000));
            if pause.then_try {
                break;
            }
            waited += pause.time;
            looks += 1;
        }
        assert!(waited <= ms(2_000), "{waited:?}");
        assert!(looks <= 20, "{looks}");
    }

    #[test]
    fn who_has_little_time_tries_while_others_wait_longer() {
        let (mut waiter, mut waited) = (Waiter::new(ms(100)), Duration::ZERO);
        while waited < ms(60) {
            let pause = waiter.next(waited, mark(7, 5_000));
            if pause.then_try {
                return;
            }
            waited += pause.time;
        }
        panic!("it does not try");
    }

    #[test]
    fn many_whose_time_has_come_do_not_try_all_the_time() {
        let mut waiter = Waiter::new(LIMIT);
        assert_eq!(waiter.next(ms(900), mark(100, 1_000)).time, SHORTEST);
        assert_eq!(waiter.next(ms(950), mark(140, 1_000)).time, ms(20));
        assert_eq!(waiter.next(ms(990), mark(900, 1_000)).time, LONGEST);
    }

    #[test]
    fn without_a_mark_each_try_waits_longer() {
        let mut waiter = Waiter::new(LIMIT);
        let pauses: Vec<Pause> = (0..8).map(|_| waiter.next(ms(0), None)).collect();
        assert!(pauses.iter().all(|pause| pause.then_try));
        assert!(pauses.is_sorted_by_key(|pause| pause.time));
        assert_eq!(pauses[7].time, ms(64));
    }
}
