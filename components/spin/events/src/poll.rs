//! How often the outbox is looked at: often while something happens, seldom while nothing
//! does, and never so often that looking is most of what is done.

use std::time::Duration;

/// Time between two looks while something happens.
const FASTEST: Duration = Duration::from_millis(5);
/// Time between two looks while nothing does.
const SLOWEST: Duration = Duration::from_millis(250);
/// How long after the last find something still happens.
const LIVELY: Duration = Duration::from_secs(1);
/// How many times as long as a look took there is none, at least: where many look, or the
/// machine is busy, all of them look less often.
const REST: u32 = 4;

/// The pace of one stream.
#[derive(Debug)]
pub(crate) struct Pace {
    /// For how long there was nothing.
    silent: Duration,
    wait: Duration,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace {
            silent: Duration::ZERO,
            wait: FASTEST,
        }
    }

    /// How long to wait, after a look that took so long and found something or nothing.
    pub(crate) fn next(&mut self, found: bool, took: Duration) -> Duration {
        if found {
            *self = Pace::new();
        }
        self.wait = match self.silent < LIVELY {
            true => FASTEST,
            false => (self.wait * 3 / 2).min(SLOWEST),
        };
        let wait = self.wait.max(took * REST).min(SLOWEST);
        self.silent += wait + took;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn the_pace_slows_down_and_is_fast_again_at_once() {
        let mut pace = Pace::new();
        let mut last = FASTEST;
        for _ in 0..400 {
            let next = pace.next(false, AT_ONCE);
            assert!(next >= last && next <= SLOWEST);
            last = next;
        }
        assert_eq!(last, SLOWEST);
        assert_eq!(pace.next(true, AT_ONCE), FASTEST);
        assert_eq!(pace.next(false, AT_ONCE), FASTEST);
    }

    #[test]
    fn it_stays_fast_while_something_happens_now_and_then() {
        let mut pace = Pace::new();
        for look in 0..1_000 {
            let found = look % 50 == 0;
            assert_eq!(pace.next(found, AT_ONCE), FASTEST);
        }
    }

    #[test]
    fn looks_that_take_long_are_few() {
        let mut pace = Pace::new();
        let slow = Duration::from_millis(10);
        assert_eq!(pace.next(true, slow), slow * REST);
        assert_eq!(pace.next(true, Duration::from_secs(9)), SLOWEST);
    }
}
