//! How often the outbox is looked at: often while something happens, seldom while nothing
//! does.

use std::time::Duration;

/// Time between two looks while something happens.
const FASTEST: Duration = Duration::from_millis(5);
/// Time between two looks while nothing does.
const SLOWEST: Duration = Duration::from_millis(250);

/// The pace of one stream.
#[derive(Debug)]
pub(crate) struct Pace(Duration);

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace(FASTEST)
    }

    /// How long to wait, after a look that found something or nothing.
    pub(crate) fn next(&mut self, found: bool) -> Duration {
        let wait = match found {
            true => FASTEST,
            false => self.0,
        };
        self.0 = (wait * 3 / 2).min(SLOWEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_slows_down_and_is_fast_again_at_once() {
        let mut pace = Pace::new();
        assert_eq!(pace.next(false), FASTEST);
        let mut last = FASTEST;
        for _ in 0..20 {
            let next = pace.next(false);
            assert!(next >= last && next <= SLOWEST);
            last = next;
        }
        assert_eq!(last, SLOWEST);
        assert_eq!(pace.next(true), FASTEST);
        assert!(pace.next(false) < SLOWEST);
    }
}
